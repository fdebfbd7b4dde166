#!/usr/bin/env python3
"""What ptxas and nvdisasm say about the kernels of one file for one architecture: used by scripts/sass.sh.

scripts/facts.py LOG SASS SM    LOG: what ptxas -v wrote; SASS: what nvdisasm -c made of its result
scripts/facts.py --table FACTS  kernels/BUDGET.md from lines of the first form

A line per kernel: name, SM, then the FIELDS below. The hot loop is the one with the most FFMA among those that hold no
loop of their own; where no loop has one, its fields are 0.
"""

import collections
import pathlib
import re
import sys

FIELDS = "registers shared stack spills local ldg128 lds128 stg128 loop loop_ffma loop_lds128".split()
OPCODE = re.compile(r"^\s+/\*([0-9a-f]+)\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)(.*)")


def from_log(text):
    """Per kernel: registers, shared memory, stack and spills."""
    facts = {}
    for part in re.split(r"Compiling entry function ", text)[1:]:
        name = re.match(r"'(\w+)'", part)[1]

        def number(pattern):
            return sum(int(value) for value in re.findall(pattern, part))

        facts[name] = {
            "registers": number(r"Used (\d+) registers"),
            "shared": number(r"(\d+) bytes smem"),
            "stack": number(r"(\d+) bytes stack frame"),
            "spills": number(r"(\d+) bytes spill"),
        }
    return facts


def loops_of(lines):
    """The instructions of every loop that holds no other: from a label to a branch back to it."""
    labels, spans = {}, []
    for at, line in enumerate(lines):
        label = re.match(r"^(\.L_x_\d+):", line)
        if label:
            labels[label[1]] = at
        branch = re.search(r"\bBRA(?:\.U)?(?:\s+!?U?P\w+,)?\s+`\((\.L_x_\d+)\)", line)
        # A branch to itself only pads the end.
        if branch and branch[1] in labels and at > labels[branch[1]] + 1:
            spans.append((labels[branch[1]], at))
    inner = [(a, b) for a, b in spans if not any((c, d) != (a, b) and a <= c and d <= b for c, d in spans)]
    return [opcodes(lines[a : b + 1]) for a, b in inner]


def opcodes(lines):
    return [match[2] for match in map(OPCODE.match, lines) if match]


def count(codes, *prefixes):
    return sum(any(code == it or code.startswith(it + ".") for it in prefixes) for code in codes)


def wide(codes, prefix):
    return sum(code.startswith(prefix) and ".128" in code for code in codes)


def from_sass(text):
    facts = {}
    for part in re.split(r"^\t\.section\t\.text\.", text, flags=re.M)[1:]:
        name, lines = re.match(r"\w+", part)[0], part.splitlines()
        codes = opcodes(lines)
        loops = loops_of(lines)
        hot = max(loops, key=lambda loop: count(loop, "FFMA"), default=[])
        hot = hot if count(hot, "FFMA") else []
        facts[name] = {
            "local": count(codes, "LDL", "STL"),
            "ldg128": wide(codes, "LDG"),
            "lds128": wide(codes, "LDS"),
            "stg128": wide(codes, "STG"),
            "loop": len(hot),
            "loop_ffma": count(hot, "FFMA"),
            "loop_lds128": wide(hot, "LDS"),
        }
    return facts


HEAD = """# What the kernels take

Every kernel of the shipped PTX as ptxas and nvdisasm of {tools} see it, for every generation that runs it. Made by
`scripts/budget.sh`; `scripts/budget.sh --check` fails where it is not true any more. Nothing here was measured.

- registers a thread; bytes of static shared memory a block; bytes of stack a thread, and how many instructions load or
  store there (where there is a score tile: the closed chunks of kernels/score_tile.cuh, touched once in SCORE_CHUNK
  steps of depth); bytes spilled, which have to be 0
- instructions that move 128 bits: loads and stores of device memory, loads of shared memory
- the hot loop: the one with the most FFMA, if any has one, among those that hold no other; its instructions (those that
  close a chunk included), and how many of them are FFMA and 128-bit loads of shared memory

Where generations differ, values are in the order of the heading.

"""


def table(text, tools):
    """kernels/BUDGET.md: a row per kernel and fact group, generations side by side where they differ."""
    facts = collections.OrderedDict()
    for line in text.splitlines():
        name, sm, *values = line.split()
        facts.setdefault(name, collections.OrderedDict())[sm] = dict(zip(FIELDS, values))
    generations = {}
    for name, of in facts.items():
        generations.setdefault(tuple(of), []).append(name)
    out = HEAD.format(tools=tools)
    for sms, names in generations.items():
        out += f"## {', '.join(sms)}\n\n"
        out += "| kernel | registers | shared | stack | local | spills | LDG.128 | STG.128 | LDS.128 | hot loop | FFMA | LDS.128 |\n"
        out += "|---|---|---|---|---|---|---|---|---|---|---|---|\n"
        for name in sorted(names):
            cells = []
            for field in "registers shared stack local spills ldg128 stg128 lds128 loop loop_ffma loop_lds128".split():
                values = [facts[name][sm][field] for sm in sms]
                cells.append(values[0] if len(set(values)) == 1 else " / ".join(values))
            out += f"| `{name}` | {' | '.join(cells)} |\n"
        out += "\n"
    return out.rstrip("\n") + "\n"


def main():
    if sys.argv[1] == "--table":
        sys.stdout.write(table(pathlib.Path(sys.argv[2]).read_text(), sys.argv[3]))
        return
    log, sass, sm = sys.argv[1:]
    kernels = from_log(pathlib.Path(log).read_text())
    sass = from_sass(pathlib.Path(sass).read_text())
    for name, facts in kernels.items():
        facts.update(sass[name])
        print(name, sm, *(facts[field] for field in FIELDS))


if __name__ == "__main__":
    main()
