"""Compiles kernels/*.cu to the PTX that is shipped, through NVRTC 12.0. Called by scripts/ptx.sh.

    nvrtc.py LIBNVRTC INCLUDE KERNELS OUT

Writes OUT/<stem>.<arch>.ptx for every kernel, stamped with the hash of its sources, and removes other .ptx there.
"""

import ctypes
import pathlib
import sys

MASK = (1 << 128) - 1


def source_hash(kernels: pathlib.Path, source: pathlib.Path) -> str:
    """FNV-1a with 128 bits over the source and every header, each as name, 0, text, 0. build.rs computes the same."""
    headers = [path for path in kernels.iterdir() if path.suffix in (".h", ".cuh")]
    value = 0x6C62272E07BB014262B821756295C58D
    for path in [source, *sorted(headers, key=lambda path: path.name.encode())]:
        text = path.read_bytes().replace(b"\r\n", b"\n")
        for byte in path.name.encode() + b"\0" + text + b"\0":
            value = ((value ^ byte) * 0x0000000001000000000000000000013B) & MASK
    return f"{value:032x}"


class Nvrtc:
    def __init__(self, path: str):
        self.library = ctypes.CDLL(path)
        self.library.nvrtcGetErrorString.restype = ctypes.c_char_p

    def call(self, name: str, *arguments) -> None:
        status = getattr(self.library, name)(*arguments)
        if status != 0:
            raise RuntimeError(f"{name}: {self.library.nvrtcGetErrorString(status).decode()}")

    def version(self) -> tuple[int, int]:
        major, minor = ctypes.c_int(), ctypes.c_int()
        self.call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        return major.value, minor.value

    def text(self, program, what: str) -> bytes:
        size = ctypes.c_size_t()
        self.call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        self.call(f"nvrtcGet{what}", program, buffer)
        return buffer.value

    def compile(self, name: str, source: bytes, options: list[str]) -> bytes:
        program = ctypes.c_void_p()
        self.call("nvrtcCreateProgram", ctypes.byref(program), source, name.encode(), 0, None, None)
        given = [option.encode() for option in options]
        try:
            self.call("nvrtcCompileProgram", program, len(given), (ctypes.c_char_p * len(given))(*given))
        except RuntimeError as error:
            log = self.text(program, "ProgramLog").decode(errors="replace")
            raise SystemExit(f"nvrtc: {name}: {error}\n{log}") from None
        log = self.text(program, "ProgramLog").decode(errors="replace").strip()
        if log:
            raise SystemExit(f"nvrtc: {name}: warnings count as errors\n{log}")
        ptx = self.text(program, "PTX")
        self.call("nvrtcDestroyProgram", ctypes.byref(program))
        return ptx


def main() -> None:
    library, include, kernels, out = sys.argv[1:]
    kernels, out = pathlib.Path(kernels), pathlib.Path(out)
    nvrtc = Nvrtc(library)
    if nvrtc.version() != (12, 0):
        raise SystemExit(f"nvrtc: expected NVRTC 12.0, whose PTX every driver of CUDA 12 reads, got {nvrtc.version()}")

    written = set()
    for source in sorted(kernels.glob("*.cu")):
        # As in build.rs: assign_sm90a.cu is the compute_90a design of assign.cu.
        stem, arch = source.stem, "compute_80"
        if stem.endswith("_sm90a"):
            stem, arch = stem.removesuffix("_sm90a"), "compute_90a"
        text = source.read_bytes().replace(b"\r\n", b"\n")
        # No contraction: a fused multiply-add is where the source says fmaf, on every compiler.
        options = [f"--gpu-architecture={arch}", "--std=c++17", "--fmad=false", f"-I{kernels}", f"-I{include}"]
        ptx = nvrtc.compile(source.name, text, options)
        # NVRTC 12.0 defines 38 constants of its own preamble in every module. No code can refer to them: it folds them.
        ptx = b"\n".join(line for line in ptx.split(b"\n") if not (line.startswith(b".global") and b"2nv6target" in line))
        stamp = f"// codeword {stem} {arch} sources {source_hash(kernels, source)}\n".encode()
        target = out / f"{stem}.{arch}.ptx"
        target.write_bytes(stamp + ptx.strip() + b"\n")
        written.add(target)
    for stray in set(out.glob("*.ptx")) - written:
        stray.unlink()


main()
