#!/usr/bin/env python3
"""What product quantizers of faiss reach on siftsmall, the mean of 8 seeds: the figures in tests/codes/product.rs.

tests/golden/pq_recall.py DATA    DATA: the folder of real data; needs faiss-cpu and numpy

Printed by faiss-cpu 1.15.1: the share of the 100 queries whose nearest vector comes first, and the mean squared error.
Single seeds lie up to 0.06 from the mean.
4 x 256: 0.305, 36353
8 x 256: 0.520, 21941
16 x 256: 0.695, 9867
16 x 16: 0.410, 32684
32 x 256: 0.792, 3749
8 x 16: 0.186, 51487
"""

import pathlib
import sys

import faiss
import numpy as np

data = pathlib.Path(sys.argv[1]) / "siftsmall"
base = np.load(data / "base_f32.npy").astype("f4")
queries = np.load(data / "query_f32.npy").astype("f4")
nearest = np.load(data / "groundtruth_i32.npy")[:, 0]
for m, bits in [(4, 8), (8, 8), (16, 8), (16, 4), (32, 8), (8, 4)]:
    found, error = [], []
    for seed in range(8):
        index = faiss.IndexPQ(base.shape[1], m, bits)
        index.pq.cp.seed = 1000 * seed + 1234
        index.train(base)
        index.add(base)
        ids = index.search(queries, 1)[1][:, 0]
        decoded = index.pq.decode(index.pq.compute_codes(base))
        found.append((ids == nearest).mean())
        error.append(((decoded - base) ** 2).sum(1).mean())
    print(f"{m} x {2**bits}: {np.mean(found):.3f}, {np.mean(error):.0f}")
