"""Times k-means by codeword, faiss-cpu and scikit-learn from one start and prints one Markdown table.

    .venv/bin/python kmeans.py [--shape 100000x128x256 ...] [--iterations 10] [--rounds 5]

run.sh makes the environment. Gaussian vectors; the start are the first k of them; faiss uses all points, scikit-learn
Lloyd's algorithm with tol=0. Turns, threads and ratios as in peers.py, whose time for codeword includes the labels and the
inertia of the last codebook, which faiss does not make. The inertia is computed by NumPy from each one's codebook, or told by
codeword.
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


def faiss_train(x, e, iterations, threads):
    import faiss

    faiss.omp_set_num_threads(threads)

    def run():
        n, d = x.shape
        k_means = faiss.Kmeans(d, len(e), niter=iterations, max_points_per_centroid=n, min_points_per_centroid=1)
        k_means.train(x, init_centroids=e)
        return k_means.centroids

    return run


def sklearn_train(x, e, iterations, threads):
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    threadpool_limits(threads)
    k_means = KMeans(len(e), init=e, n_init=1, max_iter=iterations, tol=0, algorithm="lloyd")
    return lambda: k_means.fit(x).cluster_centers_


def inertia(x, e):
    """In f64, a block of rows at a time; a label that f64 rounding moves costs nothing that shows."""
    x, e, total = x.astype("f8"), e.astype("f8"), 0.0
    for i in range(0, len(x), 8192):
        scores = (e**2).sum(1) - 2 * x[i : i + 8192] @ e.T
        total += ((x[i : i + 8192] - e[scores.argmin(1)]) ** 2).sum()
    return total


def work(peer, vectors, start, iterations, seconds, threads):
    import numpy

    x, e = numpy.load(vectors), numpy.load(start)
    run = globals()[f"{peer}_train"](x, e, iterations, threads)
    codebook, times = run(), []
    while len(times) < 3 or sum(times) < seconds:
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    print(json.dumps({"ms": statistics.median(times) * 1e3, "inertia": inertia(x, codebook)}))


def turn(peer, program, files, options):
    vectors, start, labels = map(str, files)
    names = ["RAYON_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"]
    environment = os.environ | {name: str(options.threads) for name in names}
    if peer == "codeword":
        command = [program, vectors, start, str(options.seconds), labels, f"train:{options.iterations}"]
    else:
        numbers = [options.iterations, options.seconds, options.threads]
        command = [sys.executable, __file__, "--work", peer, vectors, start, *map(str, numbers)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        sys.exit(f"{peer} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main():
    if sys.argv[1:2] == ["--work"]:
        peer, vectors, start, iterations, seconds, threads = sys.argv[2:]
        return work(peer, vectors, start, int(iterations), float(seconds), int(threads))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", help="NxDxK, may be repeated")
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of repeats in one turn")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    import numpy

    program, names = peers.build(), ["codeword", "faiss", "sklearn"]
    print("| vectors | by | ms, median [min-max] | times as long as codeword | inertia |\n|---|---|---|---|---|")
    for shape in options.shape or ["100000x128x256", "100000x128x1024"]:
        n, d, k = map(int, shape.split("x"))
        with tempfile.TemporaryDirectory() as folder:
            files = [pathlib.Path(folder) / name for name in ["vectors.npy", "start.npy", "labels.npy"]]
            x = numpy.random.default_rng(1).standard_normal((n, d), dtype="float32")
            numpy.save(files[0], x)
            numpy.save(files[1], x[:k])
            told = {name: [] for name in names}
            for _ in range(options.rounds):
                for name in names:
                    told[name].append(turn(name, program, files, options))
        times = {name: [it["ms"] for it in told[name]] for name in names}
        for name in names:
            ratio = statistics.median(theirs / ours for theirs, ours in zip(times[name], times["codeword"]))
            spread = f"{statistics.median(times[name]):.0f} [{min(times[name]):.0f}-{max(times[name]):.0f}]"
            print(f"| {n:,} x {d}, k={k} | {name} | {spread} | {ratio:.2f} | {told[name][0]['inertia']:.8g} |")
    print(f"\n{peers.processor()}, {options.threads} threads, {options.iterations} iterations, {time.strftime('%Y-%m-%d')}")


if __name__ == "__main__":
    main()
