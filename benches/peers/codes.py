"""Times product and residual quantizers of codeword and faiss-cpu and prints one Markdown table.

    .venv/bin/python codes.py [--parts 8x256 ...] [--stages 4x256 ...] [--rounds 3]

run.sh makes the environment. Training, from 100,000 x 128 Gaussian vectors in 25 iterations of all of them (faiss from its own
random start, each of ours from random rows); encoding them; the 100 nearest of 1,000,000 codes to 100 queries by asymmetric
distances. Encoding and searching with the codebooks that faiss learned. For 16 codewords faiss has IndexPQFastScan, too, whose
rounded tables find other codes; its recall of the ids of the exact tables is told. Residual stages are learned (both in few
components first) and encoded greedily, of the same vectors. Turns, threads and ratios as in peers.py.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import peers

N, D, CODES, QUERIES, NEAREST = 100_000, 128, 1_000_000, 100, 100


def median(run, seconds):
    run()
    times = []
    while len(times) < 3 or sum(times) < seconds:
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e3


def work(folder, m, k, seconds, threads):
    """Of faiss; leaves its codebooks, codes and ids, the first time."""
    import faiss
    import numpy as np

    faiss.omp_set_num_threads(threads)
    folder, bits = pathlib.Path(folder), (k - 1).bit_length()
    x, queries = np.load(folder / "vectors.npy"), np.load(folder / "queries.npy")

    def train():
        quantizer = faiss.ProductQuantizer(D, m, bits)
        quantizer.cp.niter, quantizer.cp.max_points_per_centroid = 25, N
        quantizer.train(x)
        return quantizer

    told = {"train": median(train, seconds)}
    quantizer = train()
    if not (folder / "codebooks.npy").exists():
        centroids = faiss.vector_to_array(quantizer.centroids).reshape(m, k, D // m)
        np.save(folder / "codebooks.npy", centroids)
        draws = (np.random.default_rng(i + 2).standard_normal((N, D), dtype="float32") for i in range(CODES // N))
        np.save(folder / "codes.npy", np.concatenate([quantizer.compute_codes(draw) for draw in draws]))
    index = faiss.IndexPQ(D, m, bits)
    faiss.copy_array_to_vector(np.load(folder / "codebooks.npy").ravel(), index.pq.centroids)
    index.is_trained = True
    codes = np.load(folder / "codes.npy")
    faiss.copy_array_to_vector(codes.ravel(), index.codes)
    index.ntotal = CODES
    told["encode"] = median(lambda: index.pq.compute_codes(x), seconds)
    told["search"] = median(lambda: index.search(queries, NEAREST), seconds)
    ids = index.search(queries, NEAREST)[1]
    np.save(folder / "faiss_ids.npy", ids)
    if k == 16:
        fast = faiss.IndexPQFastScan(index)
        told["fast_scan"] = median(lambda: fast.search(queries, NEAREST), seconds)
        found = fast.search(queries, NEAREST)[1]
        told["fast_scan_recall"] = np.mean([len(np.intersect1d(a, b)) / NEAREST for a, b in zip(found, ids)])
    print(json.dumps(told))


def residual_work(folder, m, k, seconds, threads):
    """Of faiss; leaves its codebooks, the first time."""
    import faiss
    import numpy as np

    faiss.omp_set_num_threads(threads)
    folder = pathlib.Path(folder)
    x = np.load(folder / "vectors.npy")

    def train():
        quantizer = faiss.ResidualQuantizer(D, m, (k - 1).bit_length())
        quantizer.train_type = faiss.ResidualQuantizer.Train_default
        quantizer.max_beam_size = 1
        quantizer.cp.niter, quantizer.cp.max_points_per_centroid = 25, N
        quantizer.train(x)
        return quantizer

    told = {"train": median(train, seconds)}
    quantizer = train()
    if not (folder / "codebooks.npy").exists():
        np.save(folder / "codebooks.npy", faiss.vector_to_array(quantizer.codebooks).reshape(m, k, D))
    faiss.copy_array_to_vector(np.load(folder / "codebooks.npy").ravel(), quantizer.codebooks)
    told["encode"] = median(lambda: quantizer.compute_codes(x), seconds)
    print(json.dumps(told))


def main():
    if sys.argv[1:2] in (["--work"], ["--residual-work"]):
        kind, folder, m, k, seconds, threads = sys.argv[1:]
        run = work if kind == "--work" else residual_work
        return run(folder, int(m), int(k), float(seconds), int(threads))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", action="append", help="MxK, may be repeated")
    parser.add_argument("--stages", action="append", help="of residual quantizers, MxK, may be repeated")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of repeats of each work in one turn")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    import numpy as np

    program = peers.build("codes_peer")
    names = ["RAYON_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"]
    environment = os.environ | {name: str(options.threads) for name in names}
    print("| parts x codewords | work | codeword, ms | faiss, ms | times as long |\n|---|---|---|---|---|")
    asked = [("parts", it) for it in options.parts or []] + [("stages", it) for it in options.stages or []]
    every = [("parts", it) for it in ["8x256", "16x256", "32x256", "16x16", "32x16"]] + [("stages", "4x256")]
    for kind, sizes in asked or every:
        m, k = map(int, sizes.split("x"))
        with tempfile.TemporaryDirectory() as folder:
            at = lambda name: str(pathlib.Path(folder) / name)
            np.save(at("vectors.npy"), np.random.default_rng(1).standard_normal((N, D), dtype="float32"))
            np.save(at("queries.npy"), np.random.default_rng(99).standard_normal((QUERIES, D), dtype="float32"))
            files = [at(name) for name in ["vectors.npy", "queries.npy", "codebooks.npy", "codes.npy", "ids.npy"]]
            work_of = "--work" if kind == "parts" else "--residual-work"
            theirs_first = [sys.executable, __file__, work_of, folder, str(m), str(k), str(options.seconds), str(options.threads)]
            told = {"faiss": [], "codeword": []}
            for _ in range(options.rounds):
                for name, command in [("faiss", theirs_first), ("codeword", [program, *files, str(options.seconds)])]:
                    done = subprocess.run(command, capture_output=True, text=True, env=environment)
                    if done.returncode != 0:
                        sys.exit(f"{name} failed:\n{done.stderr}")
                    told[name].append(json.loads(done.stdout.splitlines()[-1]))
            if kind == "parts":
                ids, theirs = np.load(at("ids.npy")), np.load(at("faiss_ids.npy"))
                same = np.mean([len(np.intersect1d(a, b)) / NEAREST for a, b in zip(ids, theirs)])
        rows = [("train", "train"), ("encode", "encode")]
        if kind == "parts":
            rows.append(("search", "search"))
        if "fast_scan" in told["faiss"][0]:
            rows.append(("search", "fast_scan"))
        for ours, of_faiss in rows:
            mine, other = [it[ours] for it in told["codeword"]], [it[of_faiss] for it in told["faiss"]]
            ratio = statistics.median(b / a for a, b in zip(mine, other))
            note = ""
            if of_faiss == "search":
                note = f", {same:.4f} of its ids"
            elif of_faiss == "fast_scan":
                note = f", recall {told['faiss'][0]['fast_scan_recall']:.4f}"
            print(
                f"| {m} {'' if kind == 'parts' else kind + ' '}x {k} | {of_faiss}{note} | {statistics.median(mine):.1f} |"
                f" {statistics.median(other):.1f} | {ratio:.2f} |",
                flush=True,
            )
    print(f"\n{peers.processor()}, {options.threads} threads, {time.strftime('%Y-%m-%d')}")


if __name__ == "__main__":
    main()
