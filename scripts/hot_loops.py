#!/usr/bin/env python3
"""Prints the hot loops of the CPU's filter kernels as a Markdown table, from the machine code of a program.

scripts/hot_loops.py PROGRAM

A hot loop is an innermost loop with eight multiply-adds or more. Needs objdump (binutils) on x86-64.
"""

import re
import subprocess
import sys

KERNELS = {
    "kernels::avx512::best": "many dimensions, AVX-512",
    "kernels::avx2::best": "many dimensions, AVX2",
    "pair_kernels::avx512bf16::best": "pairs of bf16, AVX-512 BF16",
    "fixed_kernels::avx512vnni::best": "pairs of integers, AVX-512 VNNI",
    "fixed_kernels::avx2::best": "pairs of integers, AVX2",
    "small_kernels::avx512::best": "few dimensions, AVX-512",
    "small_kernels::avx2::best": "few dimensions, AVX2",
    "small_fixed_kernels::avx512vnni::best": "few dimensions, pairs of integers, AVX-512 VNNI",
    "small_fixed_kernels::avx2::best": "few dimensions, pairs of integers, AVX2",
    "kernels::avx512::scores": "all scores, AVX-512",
    "kernels::avx512::distances": "distance matrices, AVX-512",
    "kernels::avx2::distances": "distance matrices, AVX2",
}
# What is counted, in this order; an instruction belongs to the first that fits.
KINDS = {
    "multiply-adds": r"vfn?m(add|sub)\d+ps|vdpbf16ps|vpdpwssd|vpmaddwd",
    "broadcasts": r"vp?broadcast",
    "maxima": r"vp?(max|min)",
    "loads and stores": r"vmov(u|a|dq)\S* .*\(",
}


def functions(program):
    """Name and instructions, (address, text), of every function."""
    command = ["objdump", "--disassemble", "--no-show-raw-insn", "--demangle", program]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for part in text.split("\n\n"):
        if head := re.match(r"\s*[0-9a-f]+ <(.*)>:\n", part):
            lines = re.findall(r"^\s*([0-9a-f]+):\s+(\S.*?)\s*$", part, re.M)
            yield head[1], [(int(address, 16), instruction) for address, instruction in lines]


def innermost_loops(instructions):
    """Instructions of every loop that holds no other: what a jump back leads over."""
    place = {address: i for i, (address, _) in enumerate(instructions)}
    loops = set()
    for i, (_, text) in enumerate(instructions):
        if (jump := re.match(r"j\w+\s+([0-9a-f]+)", text)) and place.get(int(jump[1], 16), i + 1) <= i:
            loops.add((place[int(jump[1], 16)], i))
    for first, last in sorted(loops):
        if not any((a, b) != (first, last) and first <= a and b <= last for a, b in loops):
            yield [text for _, text in instructions[first : last + 1]]


def main():
    found = {name: set() for name in KERNELS}
    for function, instructions in functions(sys.argv[1]):
        name = next((name for name in KERNELS if function.endswith("cpu::" + name)), None)
        for loop in innermost_loops(instructions) if name else []:
            counts = dict.fromkeys(KINDS, 0)
            for text in loop:
                if kind := next((kind for kind, pattern in KINDS.items() if re.match(pattern, text)), None):
                    counts[kind] += 1
            if counts["multiply-adds"] >= 8:
                found[name].add((len(loop), *counts.values()))
    if missing := [name for name, loops in found.items() if not loops]:
        sys.exit(f"hot_loops: no loop of {', '.join(missing)} in {sys.argv[1]}")
    print("| kernel | instructions |", " | ".join(KINDS), "| others |")
    print("|---|---|" + "---|" * (len(KINDS) + 1))
    for name, loops in found.items():
        for total, *counts in sorted(loops, key=lambda loop: loop[1]):
            print(f"| {KERNELS[name]} | {total} |", " | ".join(map(str, counts)), f"| {total - sum(counts)} |")


if __name__ == "__main__":
    main()
