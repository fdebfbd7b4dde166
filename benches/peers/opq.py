"""Times optimised product quantizers of `codeword train` and of faiss-cpu and prints one Markdown table.

    .venv/bin/python opq.py [--shape 20000x768x96 ...] [--rotations 20]

run.sh makes the environment. Vectors that lie near a subspace of a quarter of the dimensions, as embeddings do; parts of 256 codewords,
learned from all of them in 25 iterations. Ours starts twice, from no rotation and from the principal components, and fits as many
rotations from each; faiss' OPQMatrix makes as many steps from one random rotation, in each of which codewords move 4 times (40
times in the first). Time is of the whole command and, in this process, of OPQMatrix.train with ProductQuantizer.train after it, once; the error is the mean
squared one of the vectors that were learned from.
"""

import argparse
import json
import os
import pathlib
import subprocess
import tempfile
import time

import peers


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", action="append", help="NxDxM, may be repeated")
    parser.add_argument("--rotations", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    for name in ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"]:
        os.environ[name] = str(options.threads)
    import faiss
    import numpy

    faiss.omp_set_num_threads(options.threads)
    root = pathlib.Path(__file__).parents[2]
    subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=root, check=True)
    print("| vectors | by | seconds | error |\n|---|---|---|---|")
    for shape in options.shape or ["65536x128x16", "20000x768x96", "20000x1024x64"]:
        n, d, m = map(int, shape.split("x"))
        random = numpy.random.default_rng(1)
        normal = lambda *shape: random.standard_normal(shape, dtype="float32")
        x = normal(n, d // 4) @ normal(d // 4, d) + normal(n, d)
        with tempfile.TemporaryDirectory() as folder:
            vectors, model = (pathlib.Path(folder) / name for name in ["x.npy", "opq.safetensors"])
            numpy.save(vectors, x)
            command = [root / "target/release/codeword", "train", vectors, "--quantizer", "opq", "-m", str(m), "-k", "256"]
            command += ["--rotations", str(options.rotations), "--max-memory", "8G", "--threads", str(options.threads)]
            begin = time.perf_counter()
            done = subprocess.run([*command, "-o", model, "--json"], capture_output=True, check=True)
            seconds = time.perf_counter() - begin
            print(f"| {n:,} x {d}, {m} x 256 | codeword | {seconds:.1f} | {json.loads(done.stdout)['distortion']:.6g} |", flush=True)
        rotation, quantizer = faiss.OPQMatrix(d, m), faiss.ProductQuantizer(d, m, 8)
        rotation.niter = options.rotations
        quantizer.cp.max_points_per_centroid = rotation.max_train_points = n
        begin = time.perf_counter()
        rotation.train(x)
        y = rotation.apply(x)
        quantizer.train(y)
        seconds = time.perf_counter() - begin
        error = ((y - quantizer.decode(quantizer.compute_codes(y))) ** 2).sum(1).mean()
        print(f"| | faiss | {seconds:.1f} | {error:.6g} |", flush=True)
    print(f"\n{peers.processor()}, {options.threads} threads, {options.rotations} rotations, {time.strftime('%Y-%m-%d')}")


if __name__ == "__main__":
    main()
