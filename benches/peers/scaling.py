"""How the time of codeword grows with vectors, dimensions, codewords and threads: slopes of log time over log size, and a
picture of the points.

    .venv/bin/python scaling.py [--rounds 5] [--svg scaling.svg]

run.sh makes the environment. Gaussian vectors; each series goes through two decades of one size. Turns and clock as in
peers.py: a process per point, points in turn, the median of each; threads are compared within a round.
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
import tempfile

import peers

# Name, and the points n x d x k.
SERIES = {
    "vectors": [(n, 64, 256) for n in [10_000, 31_623, 100_000, 316_228, 1_000_000]],
    "dimensions": [(20_000, d, 512) for d in [40, 126, 400, 1265, 4000]],
    "codewords": [(20_000, 64, k) for k in [100, 316, 1000, 3162, 10_000]],
}
THREADS = (32_768, 256, 16_384)


def size(series, point):
    return point[list(SERIES).index(series)]


def problem(folder, shape):
    """The files of a shape; small ones are the beginning of large ones."""
    import numpy

    n, d, k = shape
    files = []
    for name, rows, seed in [("vectors", n, 1), ("codebook", k, 2)]:
        files.append(folder / f"{name}-{rows}x{d}.npy")
        if not files[-1].exists():
            numpy.save(files[-1], numpy.random.default_rng(seed).standard_normal((rows, d), dtype="float32"))
    return files[0], files[1], folder / "labels.npy"


def slope(points):
    """Of the least-squares line through the logarithms."""
    import numpy

    sizes, times = zip(*points)
    return numpy.polyfit(numpy.log(sizes), numpy.log(times), 1)[0]


def picture(path, series, machine):
    try:
        import matplotlib
    except ImportError:
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "matplotlib==3.*"], check=True)
        import matplotlib
    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, all_axes = pyplot.subplots(1, len(series), figsize=(4 * len(series), 3.6), layout="constrained")
    for axes, (name, points) in zip(all_axes, series.items()):
        axes.loglog(*zip(*points), marker="o")
        axes.set(xlabel=name, ylabel="ms", title=f"slope {slope(points):.2f}")
        axes.grid(True, which="both", alpha=0.3)
    figure.suptitle(machine)
    figure.savefig(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="of repeats in one turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--svg", type=pathlib.Path, default=pathlib.Path("scaling.svg"))
    options = parser.parse_args()
    program, series = peers.build(), {}
    print(f"{peers.processor()}, {options.threads} threads, {options.rounds} rounds\n")
    print("| over | points: size ms | slope |")
    print("|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for name, points in SERIES.items():
            times = {point: [] for point in points}
            for _ in range(options.rounds):
                for point in points:
                    times[point].append(peers.turn("codeword", program, problem(folder, point), options))
            series[name] = [(size(name, point), statistics.median(times[point])) for point in points]
            listed = ", ".join(f"{at:,} {ms:.2f}" for at, ms in series[name])
            print(f"| {name} | {listed} | {slope(series[name]):.3f} |", flush=True)
        most, times = options.threads, {1: [], options.threads: []}
        for _ in range(options.rounds):
            for options.threads in times:
                turn = peers.turn("codeword", program, problem(folder, THREADS), options)
                times[options.threads].append(turn)
    ratio = statistics.median(one / more for one, more in zip(times[1], times[most]))
    print(f"\n{'x'.join(map(str, THREADS))}: {most} threads are {ratio:.2f} times as fast as one")
    picture(options.svg, series, peers.processor())
    print(f"picture: {options.svg}")


if __name__ == "__main__":
    main()
