"""Times nearest codewords by codeword and its peers and prints one Markdown table. Started by run.sh.

Every peer is a process of its own with the same number of threads, fed the same f32 .npy files. The peers take turns
(A B C A B C ...), so that a machine whose speed drifts is unfair to nobody: the ratio is the median of the ratios within
one round. A process loads its data, runs once unmeasured, then repeats for a while and reports its median. Only the
computing is timed; for codeword that includes preparing the codebook.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
SHAPES = ["100000x256x1024", "100000x128x256", "200000x16x256", "65536x4x8192"]
PEERS = ["codeword", "codeword-fast", "faiss", "torch", "sklearn", "scipy"]


def faiss_labels(x, e, threads):
    import faiss

    faiss.omp_set_num_threads(threads)
    return lambda: faiss.knn(x, e, 1)[1][:, 0]


def torch_labels(x, e, threads):
    """The line of VQGAN and its descendants."""
    import torch

    torch.set_num_threads(threads)
    z, e = torch.from_numpy(x), torch.from_numpy(e)

    def run():
        d = torch.sum(z**2, dim=1, keepdim=True) + torch.sum(e**2, dim=1) - 2 * torch.einsum("bd,dn->bn", z, e.t())
        return torch.argmin(d, dim=1)

    return run


def sklearn_labels(x, e, threads):
    from sklearn.metrics import pairwise_distances_argmin
    from threadpoolctl import threadpool_limits

    threadpool_limits(threads)
    return lambda: pairwise_distances_argmin(x, e)


def scipy_labels(x, e, threads):
    """One thread is all that cdist has; blocks of rows, because it computes in f64 and keeps every distance."""
    import numpy
    from scipy.spatial.distance import cdist

    blocks = [slice(i, i + 4096) for i in range(0, len(x), 4096)]
    return lambda: numpy.concatenate([cdist(x[block], e, "sqeuclidean").argmin(axis=1) for block in blocks])


def work(peer, vectors, codebook, seconds, labels, threads):
    """One turn of one Python peer; prints what codeword_peer.rs prints."""
    import numpy

    run = globals()[f"{peer}_labels"](numpy.load(vectors), numpy.load(codebook), threads)
    first = run()
    times = []
    while len(times) < 3 or sum(times) < seconds:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    numpy.save(labels, numpy.asarray(first).astype("<u4"))
    print(json.dumps({"ms": statistics.median(times) * 1e3, "repeats": len(times)}))


def turn(peer, program, files, options):
    """Starts one process, waits for it, returns its median in milliseconds."""
    vectors, codebook, labels = files
    environment = os.environ | {
        name: str(options.threads) for name in ["RAYON_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"]
    }
    if peer.startswith("codeword"):
        mode = "fast" if peer.endswith("-fast") else "exact"
        command = [program, vectors, codebook, str(options.seconds), labels, mode]
    else:
        arguments = [vectors, codebook, str(options.seconds), labels, str(options.threads)]
        command = [sys.executable, __file__, "--work", peer, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        sys.exit(f"{peer} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])["ms"]


def compare(name, files, program, options):
    """All rounds of one problem; returns the rows of the table."""
    import numpy

    vectors, codebook, folder = files
    (n, d), (k, _) = (numpy.load(file, mmap_mode="r").shape for file in (vectors, codebook))
    labels = {peer: folder / f"{peer}.labels.npy" for peer in options.peers}
    times = {peer: [] for peer in options.peers}
    for number in range(1, options.rounds + 1):
        for peer in options.peers:
            times[peer].append(turn(peer, program, (vectors, codebook, labels[peer]), options))
            print(f"{name} round {number}: {peer} {times[peer][-1]:.2f} ms", file=sys.stderr)

    ours = options.peers[0]
    reference = numpy.load(labels[ours])
    rows = []
    for peer in options.peers:
        median = statistics.median(times[peer])
        ratio = statistics.median(theirs / mine for theirs, mine in zip(times[peer], times[ours]))
        differ = 100 * numpy.mean(numpy.load(labels[peer]) != reference)
        rows.append(
            f"| {name} | {peer} | {median:.2f} [{min(times[peer]):.2f}-{max(times[peer]):.2f}] "
            f"| {2e-6 * n * d * k / median:.0f} | {ratio:.2f} | {differ:.4f} % |"
        )
    return rows


def problems(options, folder):
    """Name, vectors and codebook of every problem: Gaussian ones by shape, then the real ones there are."""
    import numpy

    def gaussian(name, rows, cols, random):
        file = folder / f"{name}.npy"
        numpy.save(file, random.standard_normal((rows, cols), dtype="float32"))
        return file

    for shape in options.shape or SHAPES:
        n, d, k = map(int, shape.split("x"))
        random = numpy.random.default_rng(1)
        files = gaussian("vectors", n, d, random), gaussian("codebook", k, d, random), folder
        yield f"{n:,} x {d}, k={k}", files
    data = os.environ.get("CODEWORD_DATA")
    if data and not options.shape:
        data = pathlib.Path(data)
        files = data / "siftsmall/base_f32.npy", data / "faiss_ref/kmeans256_centroids_f32.npy", folder
        yield "siftsmall 10,000 x 128, k=256", files


def processor():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def build(name="codeword_peer"):
    """Builds our side and returns its path."""
    command = ["cargo", "bench", "--bench", name, "--no-run", "--message-format=json"]
    done = subprocess.run(command, cwd=HERE, stdout=subprocess.PIPE, text=True, check=True)
    messages = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    return next(m["executable"] for m in messages if m.get("target", {}).get("name") == name and m["executable"])


def main():
    if sys.argv[1:2] == ["--work"]:
        peer, vectors, codebook, seconds, labels, threads = sys.argv[2:]
        return work(peer, vectors, codebook, float(seconds), labels, int(threads))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", help="NxDxK, may be repeated; default: the standard shapes")
    parser.add_argument("--peers", default=",".join(PEERS), type=lambda names: names.split(","))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of repeats in one turn")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if unknown := set(options.peers) - set(PEERS):
        parser.error(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    program = build() if any(peer.startswith("codeword") for peer in options.peers) else None
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, files in problems(options, pathlib.Path(folder)):
            rows += compare(name, files, program, options)
    print(f"{processor()}, {options.threads} threads, {options.rounds} rounds, {time.strftime('%Y-%m-%d')}\n")
    print("| vectors | by | ms, median [min-max] | GFLOP/s | times as long as", options.peers[0], "| labels that differ |")
    print("|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
