"""Times k-means++ by `codeword train` and by scikit-learn and prints one Markdown table.

    .venv/bin/python starts.py [--shape 100000x128x1024 ...] [--rounds 3]

run.sh makes the environment. Gaussian vectors of f32; scikit-learn's kmeans_plusplus with one trial for each codeword, as the paper has
it (its KMeans takes the best of several). Time is of the whole command, which reads the vectors from a file in the page cache and
labels them at the end, and of the function alone, which runs in this process, in turn. Medians over the rounds, of which each has
another seed, of the times, of their ratios, and of the inertia of the start, before any iteration.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

import kmeans
import peers


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", help="NxDxK, may be repeated")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    for name in ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"]:
        os.environ[name] = str(options.threads)
    import numpy
    from sklearn.cluster import kmeans_plusplus

    root = pathlib.Path(__file__).parents[2]
    subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=root, check=True)
    print("| vectors | codeword, s | scikit-learn, s | times as long | inertia of each |\n|---|---|---|---|---|")
    for shape in options.shape or ["100000x128x256", "100000x128x1024", "100000x8x256"]:
        n, d, k = map(int, shape.split("x"))
        x = numpy.random.default_rng(1).standard_normal((n, d), dtype="float32")
        ours, theirs = [], []
        with tempfile.TemporaryDirectory() as folder:
            vectors, model = (pathlib.Path(folder) / name for name in ["x.npy", "e.npy"])
            numpy.save(vectors, x)
            command = [root / "target/release/codeword", "train", vectors, "-k", str(k), "--iterations", "0", "--force"]
            command += ["-o", model, "--json", "--max-memory", "8G", "--threads", str(options.threads)]
            for seed in range(options.rounds):
                begin = time.perf_counter()
                subprocess.run([*command, "--seed", str(seed)], capture_output=True, check=True)
                ours.append((time.perf_counter() - begin, kmeans.inertia(x, numpy.load(model))))
                begin = time.perf_counter()
                e, _ = kmeans_plusplus(x, k, random_state=seed, n_local_trials=1)
                theirs.append((time.perf_counter() - begin, kmeans.inertia(x, e)))
        ratio = statistics.median(b / a for (a, _), (b, _) in zip(ours, theirs))
        (mine, inertia), (other, of_other) = ([statistics.median(column) for column in zip(*of)] for of in (ours, theirs))
        told = f"{mine:.2f} | {other:.2f} | {ratio:.2f} | {inertia:.6g} {of_other:.6g}"
        print(f"| {n:,} x {d}, k={k} | {told} |", flush=True)
    print(f"\n{peers.processor()}, {options.threads} threads, {time.strftime('%Y-%m-%d')}")


if __name__ == "__main__":
    main()
