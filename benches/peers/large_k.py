"""Compares the hierarchical start with flat Lloyd where codewords are many, and prints one Markdown table of `codeword train`.

    .venv/bin/python large_k.py [--shape 1000000x64x65536] [--clusters 2000] [--way hierarchical:0 ...]

run.sh makes the environment. A way is a start and how often codewords are moved from there. Vectors lie about centres, both
Gaussian, the centres four times as far spread. Time is of the whole command, its file in the page cache; the inertia is what it tells.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile
import time

import peers

WAYS = ["hierarchical:0", "hierarchical:3", "hierarchical:10", "random:3", "random:10", "random:25"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="1000000x64x65536", help="NxDxK")
    parser.add_argument("--clusters", type=int, default=2000)
    parser.add_argument("--way", action="append", help="START:ITERATIONS, may be repeated")
    parser.add_argument("--memory", default="4G")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    import numpy

    root = pathlib.Path(__file__).parents[2]
    subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=root, check=True)
    n, d, k = map(int, options.shape.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        random, folder = numpy.random.default_rng(1), pathlib.Path(folder)
        centres = 4 * random.standard_normal((options.clusters, d), dtype="float32")
        x = centres[random.integers(options.clusters, size=n)] + random.standard_normal((n, d), dtype="float32")
        numpy.save(folder / "x.npy", x)
        results = []
        for way in options.way or WAYS:
            start, iterations = way.split(":")
            command = [root / "target/release/codeword", "train", folder / "x.npy", "-k", str(k), "--init", start]
            command += ["--iterations", iterations, "--max-memory", options.memory, "--threads", str(options.threads)]
            begin = time.perf_counter()
            done = subprocess.run([*command, "-o", folder / f"{way}.npy", "--json"], capture_output=True, check=True)
            told = json.loads(done.stdout)
            results.append((start, iterations, time.perf_counter() - begin, told["inertia"], told["dead"]))
            print(results[-1], flush=True)
    least = min(inertia for *_, inertia, _ in results)
    print(f"\n{n:,} x {d} in {options.clusters} clusters, k={k}\n")
    print("| start | iterations | seconds | inertia, above the least | codewords without vectors |\n|---|---|---|---|---|")
    for start, iterations, seconds, inertia, dead in results:
        above = 100 * (inertia / least - 1)
        print(f"| {start} | {iterations} | {seconds:.0f} | {inertia:.6g}, {above:+.2f} % | {dead} |")
    print(f"\n{peers.processor()}, {options.threads} threads, {time.strftime('%Y-%m-%d')}")


if __name__ == "__main__":
    main()
