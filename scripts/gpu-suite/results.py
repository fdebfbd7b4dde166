"""Times nearest codewords on a GPU by codeword, torch and, where importable, flash-kmeans and flashlib, on the same
numbers, and writes results.json and results.md. Needs Python 3.8; without torch only our own lines are there.

    python3 results.py [SHAPE...]     NxDxK or NxDxK:STRIDE; default: those of bench-cuda
    python3 results.py codes          product codes made and searched (or codes:N), ours alone

Each peer runs on tensors that lie on the device, its result stays there, and a repeat is one call and the wait for it by
the host's clock: what bench-cuda does. TF32 is off. Where the n x k matrix of a peer does not fit, it goes through in
equal chunks of rows, which is told. Lines of an earlier run stay unless they are measured anew, so that a machine that
is lent for minutes can be used shape by shape.

CODEWORD_BENCH_SECONDS  of repeats per line (default 1)
CODEWORD_BENCH_PEERS    names, joined by commas (default: all)
CODEWORD_BENCH_DTYPES   f32, f16, bf16 (default: f32,f16 for peers)
CODEWORD_BENCH_DEVICE   torch device (default cuda)
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
SECONDS = float(os.environ.get("CODEWORD_BENCH_SECONDS", "1"))
DEVICE = os.environ.get("CODEWORD_BENCH_DEVICE", "cuda")
RESULTS = HERE / "results.json"


def torch_line(z, e):
    """The line of VQGAN and its descendants."""
    d = z.pow(2).sum(dim=1, keepdim=True) + e.pow(2).sum(dim=1) - 2 * z @ e.t()
    return d.argmin(dim=1)


def torch_cdist(z, e):
    import torch

    return torch.cdist(z, e).argmin(dim=1)


def gemm(z, e):
    """What all of them have to do at least: n x k sums of d products. No labels."""
    return z @ e.t()


def torch_compile(z, e):
    if not hasattr(torch_compile, "line"):
        import torch

        torch._dynamo.config.cache_size_limit = 256
        torch_compile.line = torch.compile(torch_line, dynamic=False)
    return torch_compile.line(z, e)


def flash_kmeans(z, e):
    from flash_kmeans.assign_euclid_triton import euclid_assign_triton

    return euclid_assign_triton(z[None], e[None], z.float().pow(2).sum(dim=1)[None])[0]


def flashlib_triton(z, e):
    from flashlib.primitives.kmeans import euclid_assign_triton

    return euclid_assign_triton(z[None], e[None])[0]


def flashlib_cutedsl(z, e):
    import cutlass  # noqa: F401  without it flashlib would take its Triton kernel instead
    from flashlib.primitives.kmeans import cutedsl_assign_euclid

    return cutedsl_assign_euclid(z[None], e[None])[0]


# By name: the function, and how many n x k matrices of four bytes it holds at once (0: none).
PEERS = {
    "gemm": (gemm, 1),
    "torch": (torch_line, 4),
    "torch.compile": (torch_compile, 4),
    "torch.cdist": (torch_cdist, 3),
    "flash-kmeans": (flash_kmeans, 0),
    "flashlib-triton": (flashlib_triton, 0),
    "flashlib-cutedsl": (flashlib_cutedsl, 0),
}


def sizes(shape):
    body, _, stride = shape.partition(":")
    n, d, k = map(int, body.split("x"))
    return n, d, k, int(stride) if stride else d


def numbers(seed, rows, cols, dtype):
    """The sequence of benches/cuda.rs; every value is exact in f32, so both sides round the same to 16 bits."""
    import torch

    signed = lambda word: word - (1 << 64) if word >> 63 else word
    out = torch.empty(rows * cols, dtype=dtype, device=DEVICE)
    for start in range(0, rows * cols, 1 << 26):
        end = min(start + (1 << 26), rows * cols)
        h = torch.arange(start, end, dtype=torch.int64, device=DEVICE) + (seed << 40)
        for factor in (0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93):
            h *= signed(factor)
            h ^= (h >> 32) & 0xFFFFFFFF
        total = sum((h >> (16 * lane)) & 0xFFFF for lane in range(4))
        out[start:end] = ((total - 131070).to(torch.float32) / 32768).to(dtype)
    return out.view(rows, cols)


def synchronize():
    import torch

    if DEVICE.startswith("cuda"):
        torch.cuda.synchronize()


def chunks(n, k, matrices):
    """Equal chunks of rows whose matrices fit into half of the free memory; how many."""
    import torch

    if not DEVICE.startswith("cuda"):
        return 1
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info()[0]
    count = max(1, -(-n * k * 4 * matrices // (free // 2)))
    return next((c for c in range(count, min(n, 64 * count) + 1) if n % c == 0), count)


def time_peer(name, shape, z, e):
    """One line of results."""
    import torch

    n, d, k, _ = sizes(shape)
    function, matrices = PEERS[name]
    count = chunks(n, k, matrices)
    parts = z.chunk(count)

    def run():
        start = time.perf_counter()
        labels = [function(part, e) for part in parts]
        synchronize()
        return time.perf_counter() - start, labels

    with torch.no_grad():
        run()
        times = [run()[0]]
        while len(times) < 1000 and (len(times) < 5 or sum(times) < SECONDS):
            times.append(run()[0])
        line = {
            "ms": statistics.median(times) * 1e3,
            "min": min(times) * 1e3,
            "max": max(times) * 1e3,
            "repeats": len(times),
            "tflops": 2e-12 * n * d * k / statistics.median(times),
            "chunks": count,
        }
        return line, None if name == "gemm" else torch.cat(run()[1]).to(torch.int64)


def measure_peers(shapes, labels, put):
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    peers = os.environ.get("CODEWORD_BENCH_PEERS", ",".join(PEERS)).split(",")
    dtypes = os.environ.get("CODEWORD_BENCH_DTYPES", "f32,f16").split(",")
    for shape in shapes:
        n, d, k, stride = sizes(shape)
        for dtype in dtypes:
            kind = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[dtype]
            z, e = numbers(1, n, stride, kind)[:, :d], numbers(2, k, d, kind)
            ours = labels / f"{shape}.{dtype}.u32"
            if ours.exists():
                ours = torch.from_file(str(ours), dtype=torch.int32, size=n).to(DEVICE).to(torch.int64)
            else:
                ours = None
            for name in peers:
                line = {"by": name, "shape": shape, "dtype": dtype}
                try:
                    measured, got = time_peer(name, shape, z, e)
                    line.update(measured)
                    if got is not None and ours is not None:
                        line["rows_that_differ"] = int((got != ours).sum())
                except Exception as error:  # whatever a peer does not do: its words stand in its line
                    line["skipped"] = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                put(line)
                got = None
            z = e = ours = None


def measure_ours(shapes, labels, put):
    environment = dict(os.environ, CODEWORD_BENCH_LABELS=str(labels))
    started = subprocess.Popen([str(HERE / "bench-cuda"), *shapes], env=environment, stdout=subprocess.PIPE, text=True)
    for line in started.stdout:
        if line.startswith("{"):
            put(json.loads(line))
    if started.wait() != 0:
        put({"by": "codeword", "shape": "", "dtype": "", "skipped": f"bench-cuda ended with {started.returncode}"})
    return started.returncode


def versions():
    found = {"python": sys.version.split()[0]}
    for name in ("torch", "triton", "flash_kmeans", "flashlib", "cutlass"):
        try:
            found[name] = getattr(__import__(name), "__version__", "?")
        except Exception as error:
            found[name] = f"not importable ({type(error).__name__})"
    return found


def facts():
    path = HERE / "facts.txt"
    return path.read_text().splitlines() if path.exists() else []


def table(report):
    """results.md."""
    text = ["# Nearest codewords on a GPU", ""]
    text += [f"- {fact}" for fact in report["facts"]]
    text += [f"- {name}: {version}" for name, version in report["versions"].items()]
    text += ["", "Milliseconds are the median of synchronised calls, TF32 off. `of GEMM`: TFLOP/s as a share of what"]
    text += ["torch.matmul alone reaches at this shape and type. `differ`: rows whose label is not codeword's (exact).", ""]
    text += ["| shape | type | by | ms [min-max] | TFLOP/s | of GEMM | times as long as codeword | differ | remarks |"]
    text += ["|---|---|---|---|---|---|---|---|---|"]
    shapes = [line for line in report["lines"] if "what" not in line]
    at = {(line["shape"], line["dtype"], line["by"]): line for line in shapes}
    for line in shapes:
        shape, dtype, by = line["shape"], line["dtype"], line["by"]
        if "skipped" in line:
            text.append(f"| {shape} | {dtype} | {by} | - | - | - | - | - | skipped: {line['skipped']} |".replace("\n", " "))
            continue
        floor, ours = at.get((shape, dtype, "gemm"), {}), at.get((shape, dtype, "codeword"), {})
        share = f"{100 * line['tflops'] / floor['tflops']:.0f} %" if "tflops" in floor else "-"
        ratio = f"{line['ms'] / ours['ms']:.2f}" if "ms" in ours else "-"
        differ = line.get("rows_that_differ", "-")
        remarks = f"{line['chunks']} chunks" if line.get("chunks", 1) > 1 else ""
        if "tiers" in line:
            remarks = ", ".join(f"{tier} {rows}" for tier, rows in line["tiers"].items())
        span = f"{line['ms']:.3f} [{line['min']:.3f}-{line['max']:.3f}]"
        text.append(f"| {shape} | {dtype} | {by} | {span} | {line['tflops']:.2f} | {share} | {ratio} | {differ} | {remarks} |")
    codes = [line for line in report["lines"] if "what" in line]
    if codes:
        text += ["", "Product codes, of vectors, queries and codes in host memory but where the line says `on the device`.", ""]
        text += ["| what | ms, median | least | repeats |", "|---|---|---|---|"]
    text += [f"| {it['what']} | {it['ms']:.3f} | {it['min']:.3f} | {it['repeats']} |" for it in codes]
    return "\n".join(text) + "\n"


def main():
    shapes = sys.argv[1:] or os.environ.get("CODEWORD_BENCH_SHAPES", "").split()
    lines = json.loads(RESULTS.read_text())["lines"] if RESULTS.exists() else []
    known = versions()

    def put(line):
        """Written at once: a run that is cut off keeps what it has."""
        key = lambda it: (it.get("what", ""), it.get("shape", ""), it.get("dtype", ""), it["by"])
        if key(line) in map(key, lines):
            lines[[key(it) for it in lines].index(key(line))] = line
        else:
            lines.append(line)
        order = {name: rank for rank, name in enumerate(["codeword", *PEERS])}
        # Shapes first; lines of codes as they come.
        rank = lambda it: ("what" in it, it.get("shape", ""), it.get("dtype") != "f32", it.get("dtype", ""), order.get(it["by"], 99))
        lines.sort(key=rank)
        report = {"facts": facts(), "versions": known, "lines": lines}
        RESULTS.write_text(json.dumps(report, indent=1) + "\n")
        (HERE / "results.md").write_text(table(report))
        print(json.dumps(line), flush=True)

    with tempfile.TemporaryDirectory() as folder:
        labels = pathlib.Path(folder)
        status = measure_ours(shapes, labels, put)
        ours = dict.fromkeys(line["shape"] for line in lines if line["by"] == "codeword" and line.get("shape"))
        # No peer makes codes.
        shapes = [shape for shape in shapes or ours if shape.partition(":")[0] != "codes"]
        try:
            import torch

            usable = torch.cuda.is_available() or not DEVICE.startswith("cuda")
            why = "torch sees no CUDA device"
        except Exception as error:
            usable, why = False, f"torch is not importable ({type(error).__name__})"
        if usable:
            measure_peers(shapes, labels, put)
        else:
            for shape in shapes:
                for name in PEERS:
                    put({"by": name, "shape": shape, "dtype": "f32", "skipped": why})
    return status


if __name__ == "__main__":
    sys.exit(main())
