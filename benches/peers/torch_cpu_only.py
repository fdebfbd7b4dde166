"""Lets the CUDA build of torch be imported without the CUDA libraries, for work on the CPU.

Its libraries name cuBLAS, cuDNN and others as needed, though nothing calls them without a GPU. Every one that is
missing gets a stand-in beside them: a library that has the symbols which torch names, each of which stops the program.
Needs cc and nm, which come with what Rust links with. Uses nothing outside the virtual environment it runs in.
"""

import collections
import pathlib
import re
import subprocess
import sysconfig
import tempfile

libraries = pathlib.Path(sysconfig.get_paths()["purelib"]) / "torch" / "lib"


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


# What the loader does not find, as "libcublas.so.13"; cuSOLVER is only loaded when asked for.
missing = set()
symbols = collections.defaultdict(set)
for library in libraries.glob("lib*.so"):
    missing |= set(re.findall(r"(lib(?:cu|nv|nccl)\S+) => not found", output("ldd", library)))
    for name, version in re.findall(r" U ((?:cu|nccl|nvrtc|nvshmem)\w+)(?:@(\S+))?$", output("nm", "-D", library), re.M):
        if not version.startswith("libcudart"):
            symbols[version].add(name)

with tempfile.TemporaryDirectory() as folder:
    source, versions = pathlib.Path(folder, "stand_in.c"), pathlib.Path(folder, "versions.map")
    names = sorted(set().union(*symbols.values()))
    source.write_text("".join(f"void {name}(void) {{ __builtin_trap(); }}\n" for name in names))
    versions.write_text("".join(f"{v} {{ {' '.join(n + ';' for n in sorted(s))} }};\n" for v, s in symbols.items() if v))
    for name in sorted(missing):
        flags = [f"-Wl,-soname,{name}", f"-Wl,--version-script,{versions}"]
        subprocess.run(["cc", "-w", "-shared", "-fPIC", source, *flags, "-o", libraries / name], check=True)
print("stand-ins:", *sorted(missing))
