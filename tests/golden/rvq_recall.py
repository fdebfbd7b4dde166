#!/usr/bin/env python3
"""What residual quantizers of faiss reach on siftsmall, the mean of 4 seeds: the figures in tests/codes/residual.rs.

tests/golden/rvq_recall.py DATA    DATA: the folder of real data; needs faiss-cpu and numpy

Greedy training and encoding (a beam of 1), 256 codewords a stage, k-means of 25 iterations; the queries are compared with the
decoded vectors. Printed by faiss-cpu 1.15.1: the share of the 100 queries whose nearest vector comes first, and the mean
squared error.
2 x 256: 0.143, 41047
4 x 256: 0.403, 28095
8 x 256: 0.595, 15706
"""

import pathlib
import sys

import faiss
import numpy as np

data = pathlib.Path(sys.argv[1]) / "siftsmall"
base = np.load(data / "base_f32.npy").astype("f4")
queries = np.load(data / "query_f32.npy").astype("f4")
nearest = np.load(data / "groundtruth_i32.npy")[:, 0]
for m in [2, 4, 8]:
    found, error = [], []
    for seed in range(4):
        quantizer = faiss.ResidualQuantizer(base.shape[1], m, 8)
        quantizer.train_type = faiss.ResidualQuantizer.Train_default
        quantizer.max_beam_size = 1
        quantizer.cp.niter = 25
        quantizer.cp.seed = 1000 * seed + 1234
        quantizer.train(base)
        decoded = quantizer.decode(quantizer.compute_codes(base))
        index = faiss.IndexFlatL2(base.shape[1])
        index.add(decoded)
        found.append((index.search(queries, 1)[1][:, 0] == nearest).mean())
        error.append(((decoded - base) ** 2).sum(1).mean())
    print(f"{m} x 256: {np.mean(found):.3f}, {np.mean(error):.0f}", flush=True)
