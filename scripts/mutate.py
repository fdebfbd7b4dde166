#!/usr/bin/env python3
"""Changes the kernels and their launches in small ways, one change at a time, and sees whether the tests notice.

scripts/mutate.py                       300 mutants of kernels/ and 100 of launches, the same ones every time
scripts/mutate.py --count N --launches L --seed S    N and L others
scripts/mutate.py --only assign.cu,best.cuh    of these files alone
scripts/mutate.py --resume              go on: what was caught before, by tests that are still there, counts as caught
scripts/mutate.py --list                print the mutants, run nothing

A mutant is a copy of kernels/ with one line changed. The test program, tests/cuda/, is built once; the simulated
driver runs the copy (CODEWORD_SIM_KERNELS), so that a mutant costs one g++ call and the tests that launch its kernels,
those first that caught most mutants per second, up to the one that fails. A test that takes five times its processor
time and 10 s more has failed, too; so has one that sleeps for minutes. A busy machine changes neither.

A mutant of a launch changes what the launch code hands to one kernel: a block less, half the threads, a number one off,
two addresses swapped, no launch at all. The simulated driver makes the change (CODEWORD_SIM_MUTANT), so that nothing is
built. One that never changed anything is no mutant, a grid of one block, say.

Caught: some test failed. Survivors are printed with their place and change; scripts/mutate.survivors says of some why
no test can tell them, or need: these are not run, unless --all is given, and do not count among those that have to be
caught. The run fails where fewer than 95 of 100 of the others are caught.
Needs Python 3.8, Rust and g++.
"""

import argparse
import collections
import concurrent.futures
import hashlib
import itertools
import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
KERNELS = ROOT / "kernels"
WORK = ROOT / "target" / "mutate"
SURVIVORS = ROOT / "scripts" / "mutate.survivors"
BAR = 0.95

# What is replaced by what: (name, pattern, replacements). Operators are those of formatted code: with spaces around.
CHANGES = [
    ("comparison", r" < ", [" <= "]),
    ("comparison", r" <= ", [" < "]),
    ("comparison", r" > ", [" >= "]),
    ("comparison", r" >= ", [" > "]),
    ("comparison", r" == ", [" != "]),
    ("comparison", r" != ", [" == "]),
    ("arithmetic", r" \+ ", [" - "]),
    ("arithmetic", r" - ", [" + "]),
    ("arithmetic", r" \* ", [" + "]),
    ("arithmetic", r" / ", [" * "]),
    ("arithmetic", r" % ", [" / "]),
    ("arithmetic", r" \+= ", [" -= ", " = "]),
    ("arithmetic", r" -= ", [" += "]),
    ("arithmetic", r" \*= ", [" += "]),
    ("arithmetic", r" /= ", [" -= "]),
    ("arithmetic", r"(?<=[\w\]])\+\+", [" += 2"]),
    ("arithmetic", r"(?<=[\w\]])--(?=[;)])", [" -= 2"]),
    ("sign", r"(?<=[=(,?:] )-(?=[\w(])", [""]),
    ("bits", r" << ", [" >> "]),
    ("bits", r" >> ", [" << "]),
    ("bits", r" & ", [" | "]),
    ("bits", r" \| ", [" & "]),
    ("bits", r" \^ ", [" | "]),
    ("bits", r"~(?=[\w(])", [""]),
    ("bits", r" \|= ", [" = "]),
    ("bits", r" &= ", [" = "]),
    ("logic", r" && ", [" || "]),
    ("logic", r" \|\| ", [" && "]),
    ("logic", r"(?<=[( ])!(?=[\w(])", [""]),
    ("choice", r" \? ([^?:;{}]+?) : ([^?:;,{}()]+)", [r" ? \2 : \1"]),
    ("constant", r"(?<![\w.])\d+(?=u?(?:ll)?\b(?!\.))", [lambda m: str(int(m[0]) + 1), lambda m: str(int(m[0]) - 1)]),
    ("constant", r"(?<![\w.])\d+\.\d+(?:e[-+]?\d+)?(?=f?\b)", [lambda m: repr(float(m[0]) / 2 if float(m[0]) else 1.0)]),
    ("constant", r"\b1\.000001\b", ["0.999999"]),
    ("mask", r"\b0x[0-9a-f]+(?=u?(?:ll)?\b)", [lambda m: hex(int(m[0], 16) >> 1)]),
    ("mask", r"\bFULL_WARP\b", ["0x0000ffffu"]),
    ("mask", r"\bMAGNITUDE_BITS\b", ["0xffffffffu"]),
    ("exchange", r"__shfl_xor_sync\(", ["__shfl_down_sync("]),
    ("exchange", r"__shfl_up_sync\(", ["__shfl_down_sync("]),
    ("exchange", r"__(any)_sync\(", ["__all_sync("]),
    ("barrier", r"__syncthreads\(\);", [";"]),
    ("barrier", r"__syncwarp\(\);", [";"]),
    ("atomic", r"\batomicMin\(", ["atomicMax("]),
    ("atomic", r"\batomicMax\(", ["atomicMin("]),
    ("atomic", r"\batomicAdd\(", ["atomicMax("]),
    ("rounding", r"__([fd])add_rn\(", [r"__\1sub_rn("]),
    ("rounding", r"__([fd])sub_rn\(", [r"__\1add_rn("]),
    ("rounding", r"__([fd])mul_rn\(", [r"__\1add_rn("]),
    ("rounding", r"__([fd])add_rn\(", [r"__\1add_ru("]),
    ("rounding", r"__([fd])mul_rn\(", [r"__\1mul_rd("]),
    ("rounding", r"__double2float_rn\(", ["__double2float_rd("]),
    ("rounding", r"__dsqrt_rn\(", ["("]),
    ("rounding", r"__fmaf_rn\(([^,()]+), ([^,()]+), ", [r"__fmaf_rn(\1, -\2, "]),
    ("rounding", r"\bfabs\(", ["("]),
    ("condition", r"\b(if|while) \((.+?)\)(?= \{| continue;| return| break;| [a-z_.]+\(| [\w.\->\[\]]+ [-+|&]?= )", [r"\1 (!(\2))"]),
]

# A whole line that can be left out. Not a declaration: those do not compile without.
STATEMENT = re.compile(r"^\s*(?:[\w.\->\[\]]+(?:\([^;]*\))? [-+*/|&^]?= [^;]*|[a-z_]\w*\([^;]*\)|continue|break|return|[\w.\[\]]+\+\+);\s*$")
# A declaration's bounds and names say nothing that a test could tell.
SKIPPED = re.compile(r"^\s*(?:#|static_assert|typedef|\}|template|//)|__launch_bounds__|__restrict__|__shared__|^\s*(?:const )?(?:float|double|u32|u64|Best) \w+\[[^=]*\];")


class Mutant:
    def __init__(self, file, line, kind, before, after):
        self.file, self.line, self.kind, self.before, self.after = file, line, kind, before, after

    def __str__(self):
        return f"kernels/{self.file}:{self.line} {self.kind}\n- {self.before.strip()}\n+ {self.after.strip()}"

    def key(self):
        return f"kernels/{self.file}", self.before.strip(), self.after.strip()


class LaunchMutant:
    """What one launch is given, changed: see tests/emulator/src/mutant.cpp."""

    def __init__(self, stem, kernel, place, change, name):
        self.file, self.line, self.kind, self.stem, self.kernel = f"{stem}.cu", 0, "launch", stem, kernel
        self.place, self.change, self.name = place, change, name

    def __str__(self):
        return "{} launch\n- {}\n+ {}".format(*self.key())

    def key(self):
        return f"launches/{self.kernel}", self.name, f"{self.name} {self.change}"


def code_of(line):
    """The line without its comment."""
    at = line.find("//")
    return line if at < 0 else line[:at].rstrip()


def mutants_of(file, text):
    """Every mutant of a file, in the order of its lines."""
    found, inside = {}, False
    for number, line in enumerate(text.splitlines(), 1):
        code = code_of(line)
        # Between a function's name and its body there are only names and types.
        if re.match(r"^(?:extern|static|template|struct|enum|__device__)", code):
            inside = bool(re.search(r"\{.*\}", code))
            if re.match(r"^(?:struct|enum)", code):
                inside = False
            elif code.endswith("{"):
                inside = True
                continue
        elif code.startswith(" ") and not inside:
            inside = code.endswith(") {")
            continue
        if code == "}" or code == "};":
            inside = False
        if not inside or not code.strip() or SKIPPED.search(code):
            continue
        start = code.index("{") if re.match(r"^(?:static|__device__)", code) else 0
        for kind, pattern, replacements in CHANGES:
            for match in re.finditer(pattern, code):
                # Which thread does what one thread does is nobody's business.
                if kind == "constant" and re.search(r"(?:lane|threadIdx\.x) == $", code[: match.start()]):
                    continue
                for replacement in replacements if match.start() >= start else []:
                    new = replacement(match) if callable(replacement) else match.expand(replacement)
                    after = code[: match.start()] + new + code[match.end() :]
                    if after != code:
                        found[number, after] = Mutant(file, number, kind, line, after)
        if STATEMENT.match(code) and "const " not in code:
            after = re.match(r"^\s*", code)[0] + ";"
            found.setdefault((number, after), Mutant(file, number, "statement", line, after))
    return list(found.values())


def all_mutants(only):
    mutants = []
    for path in sorted(list(KERNELS.glob("*.cu")) + list(KERNELS.glob("*.cuh"))):
        # The tensor-core operations have tests of their own, and no kernel that could be judged.
        if (not only or path.name in only) and path.name != "ptx.cuh":
            mutants += mutants_of(path.name, path.read_text())
    return mutants


def dependents(file):
    """The kernel files that a file is part of, itself included."""
    texts = {path.name: path.read_text() for path in KERNELS.iterdir() if path.suffix in (".cu", ".cuh")}
    names, grown = {file}, True
    while grown:
        more = {name for name, text in texts.items() if any(f'#include "{it}"' in text for it in names)} - names
        names |= more
        grown = bool(more)
    return {name[:-3] for name in names if name.endswith(".cu")}


def with_headers(path):
    """The text of a kernel file, behind those of the headers that it names: they may hold entry points, too."""
    text = path.read_text()
    return "".join((KERNELS / name).read_text() for name in re.findall(r'#include "(\w+\.cuh)"', text)) + text


def entries_of(stem):
    """The names of the kernels of a file."""
    parts = with_headers(KERNELS / f"{stem}.cu").split('extern "C" __global__')[1:]
    return {re.search(r"(\w+)\(", re.sub(r"__launch_bounds__\([^)]*\)", "", part))[1] for part in parts}


def launch_mutants(only):
    """Every mutant of the launches of every kernel."""
    found = []
    for path in sorted(KERNELS.glob("*.cu")):
        # What a launch of a design for one architecture is given is changed with that of the design for all.
        if only and path.name not in only or path.stem.endswith("_sm90a"):
            continue
        for part in with_headers(path).split('extern "C" __global__')[1:]:
            signature = re.sub(r"__launch_bounds__\([^)]*\)", "", part)
            kernel, parameters = re.match(r"\s*(?:void)?\s*(\w+)\(([^)]*)\)", signature).groups()
            parameters = [" ".join(it.split()) for it in parameters.split(",")]
            places = [("launch", "none", "launch"), ("grid.x", "-1", "grid.x"), ("grid.y", "-1", "grid.y")]
            places += [("block.x", "half", "block.x"), ("shared", "half", "shared")]
            types = [it.rsplit(" ", 1)[0] for it in parameters]
            names = [it.rsplit(" ", 1)[1] for it in parameters]
            for index, (kind, name) in enumerate(zip(types, names)):
                if "*" in kind:
                    # The next address of the same kind, in or out.
                    others = [other for other in range(index + 1, len(types)) if types[other] == kind]
                    places += [(f"{index},{other}", "swapped", f"{name}, {names[other]}") for other in others[:1]]
                elif kind in ("float", "double"):
                    places += [(str(index), change, name) for change in ("half", "zero")]
                else:
                    places += [(str(index), change, name) for change in ("+1", "-1")]
            found += [LaunchMutant(path.stem, kernel, *place) for place in places]
    return found


class Test:
    def __init__(self, program, name):
        self.program, self.name = program, name
        self.seconds, self.kernels, self.catches = 0.0, set(), collections.Counter()

    def worth(self, file):
        """Mutants of this file, and a few of all, that it caught per second."""
        return (self.catches[file] + 0.1 * sum(self.catches.values()) + 0.1) / (self.seconds + 0.1)

    def run(self, environment, limit):
        """Whether it passes: True, False, or None beyond the limit of processor seconds; and what it wrote."""
        command = [self.program, "--exact", self.name]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "RUST_BACKTRACE": "0", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            # Of each process of the test; what one is ended by is SIGXCPU, and its parent then fails.
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (int(limit) + 1, int(limit) + 2)),
        )
        try:
            output, _ = process.communicate(timeout=20 * limit + 60)
            return process.returncode == 0, output.decode(errors="replace")
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return None, "beyond its time limit"


def processor_seconds():
    """Of all children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def programs(offline_names):
    command = ["cargo", "test", "--no-run", "--message-format=json"]
    for name in offline_names:
        command += ["--test", name]
    output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout.decode()
    found = []
    for line in output.splitlines():
        message = json.loads(line)
        if message.get("reason") == "compiler-artifact" and message.get("executable") and message["target"]["kind"] == ["test"]:
            # A copy: a build meanwhile would take the program away. Its folder's folder has to be target/.
            (WORK / "programs").mkdir(parents=True, exist_ok=True)
            copy = WORK / "programs" / pathlib.Path(message["executable"]).name
            # One that still runs keeps its file.
            copy.unlink(missing_ok=True)
            found.append(shutil.copy2(message["executable"], copy))
    return found


def baseline(slowest):
    """The tests that pass on the kernels as they are within `slowest` seconds, with the kernels that each launches."""
    WORK.mkdir(parents=True, exist_ok=True)
    tests = []
    # What an earlier run measured of the same programs and kernels.
    measured, same = WORK / "measured", hashlib.sha256()
    for path in sorted(it for it in KERNELS.iterdir() if it.is_file()):
        same.update(path.read_bytes())
    known = json.loads(measured.read_text()) if measured.exists() else {}
    # Those that start the command line tool: what kernels do is seen by the others.
    starts_it = ("cli::", "driver::")
    for program in programs(["cuda"]):
        listed = subprocess.run([program, "--list"], stdout=subprocess.PIPE, check=True).stdout.decode()
        named = [line[: -len(": test")] for line in listed.splitlines() if line.endswith(": test")]
        tests += [Test(program, name) for name in named if not name.startswith(starts_it)]
    kept, digests = [], {}
    for index, test in enumerate(tests):
        # The first of all builds the simulated driver.
        if index == 0:
            test.run({}, 3600)
        if test.program not in digests:
            digests[test.program] = hashlib.sha256(pathlib.Path(test.program).read_bytes()).hexdigest()
        key = f"{same.hexdigest()} {digests[test.program]} {test.name}"
        if key in known:
            test.seconds, test.kernels = known[key][0], set(known[key][1])
            if test.kernels and test.seconds <= slowest:
                kept.append(test)
            continue
        start = processor_seconds()
        passed, output = test.run({}, 10 * slowest)
        test.seconds = processor_seconds() - start
        if test.seconds > slowest:
            continue
        if not passed:
            sys.exit(f"mutate: {test.name} fails on the kernels as they are\n{output}")
        # tests/common/simulated/launched.rs
        for record in (ROOT / "target/emulator/launched").glob(f"{pathlib.Path(test.program).name}@*/{test.name.replace('::', '.')}"):
            test.kernels |= {name.removesuffix(" of sm_90a") for name in record.read_text().splitlines()}
        known[key] = test.seconds, sorted(test.kernels)
        measured.write_text(json.dumps(known))
        if test.kernels:
            kept.append(test)
    return sorted(kept, key=lambda test: test.seconds)


def judge(mutant, tests, folder):
    """None where it survives, else what caught it; "stillborn" where it does not compile or changes nothing."""
    shutil.rmtree(folder, ignore_errors=True)
    copy = folder / "kernels"
    copy.mkdir(parents=True)
    applied = folder / "applied"
    if isinstance(mutant, LaunchMutant):
        environment = {"CODEWORD_SIM_MUTANT": f"{mutant.kernel} {mutant.place} {mutant.change} {applied}"}
        wanted = {mutant.kernel}
    else:
        for path in KERNELS.iterdir():
            if path.is_file():
                shutil.copy(path, copy)
        lines = (copy / mutant.file).read_text().splitlines(keepends=True)
        lines[mutant.line - 1] = mutant.after + "\n"
        (copy / mutant.file).write_text("".join(lines))
        environment = {"CODEWORD_SIM_KERNELS": str(copy)}
        wanted = set().union(*(entries_of(stem) for stem in dependents(mutant.file)))
    for test in sorted(tests, key=lambda it: -it.worth(mutant.file)):
        if not test.kernels & wanted:
            continue
        passed, output = test.run(environment, 5 * test.seconds + 10)
        if passed is None:
            test.catches[mutant.file] += 1
            return f"{test.name}: beyond its time limit"
        if not passed:
            if '"g++"' in output or "cc1plus" in output:
                return "stillborn"
            test.catches[mutant.file] += 1
            finding = re.search(r"simulated CUDA: .*", output) or re.search(r"panicked at .*\n(.*)", output)
            return f"{test.name}: {finding[0] if finding else 'failed'}"
    return "stillborn" if isinstance(mutant, LaunchMutant) and not applied.exists() else None


def explained():
    """Change to reason, of scripts/mutate.survivors."""
    reasons = {}
    if SURVIVORS.exists():
        blocks = re.findall(r"^((?:kernels|launches)/\S+)\n- (.*)\n\+ (.*)\n= (.*(?:\n  .*)*)", SURVIVORS.read_text(), re.M)
        for file, before, after, reason in blocks:
            reasons[file, before.strip(), after.strip()] = " ".join(reason.split())
    return reasons


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--launches", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--slowest", type=float, default=5.0, help="processor seconds of the slowest test that is used")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no mutant after so many")
    parser.add_argument("--all", action="store_true", help="run explained survivors, too")
    parser.add_argument("--again", help="a file of survivors as this script prints them: judge only these")
    options = parser.parse_args()

    only = [name for name in options.only.split(",") if name]
    mutants, launches = all_mutants(only), launch_mutants(only)
    total = len(mutants) + len(launches)
    random.Random(options.seed).shuffle(mutants)
    random.Random(options.seed).shuffle(launches)
    mutants = mutants[: options.count] + launches[: options.launches]
    if options.again:
        mutants = all_mutants(only) + launch_mutants(only)
        wanted = {tuple(block) for block in re.findall(r"^((?:kernels|launches)/[\w.]+)[: ].*\n- (.*)\n\+ (.*)", pathlib.Path(options.again).read_text(), re.M)}
        mutants = [mutant for mutant in mutants if mutant.key() in wanted]
    if options.list:
        print("\n".join(map(str, sorted(mutants, key=lambda it: (it.file, it.line)))))
        print(f"{len(mutants)} of {total}")
        return
    tests = baseline(options.slowest)
    print(f"{len(mutants)} of {total} mutants against {len(tests)} tests of {sum(t.seconds for t in tests):.0f} s", flush=True)

    reasons = {} if options.all else explained()
    start, lock, done = time.monotonic(), threading.Lock(), [(it, None) for it in mutants if it.key() in reasons]
    judged = WORK / "judged"
    before = [json.loads(line) for line in judged.read_text().splitlines()] if options.resume and judged.exists() else []
    before = {tuple(key): outcome for key, outcome in before if outcome}
    done += [(it, before[it.key()]) for it in mutants if it.key() in before and it.key() not in reasons]
    for (file, _, _), outcome in before.items():
        # A mutant of a launch belongs to its kernel's file, which its name alone does not tell; it counts a little for all.
        for test in tests:
            test.catches[pathlib.Path(file).name] += outcome.startswith(f"{test.name}: ")
    mutants = [mutant for mutant in mutants if mutant.key() not in reasons and mutant.key() not in before]
    judged.write_text("".join(json.dumps([key, outcome]) + "\n" for key, outcome in before.items()))
    folders = [WORK / f"copy{index}" for index in range(options.jobs)]
    free = folders[:]

    def work(mutant):
        if time.monotonic() - start > 60 * options.minutes:
            return
        with lock:
            folder = free.pop()
        try:
            outcome = judge(mutant, tests, folder)
        finally:
            with lock:
                free.append(folder)
        with lock:
            done.append((mutant, outcome))
            with open(judged, "a") as file:
                file.write(json.dumps([mutant.key(), outcome]) + "\n")
            if outcome is None:
                print(f"survived: {mutant}", flush=True)
            if len(done) % 20 == 0:
                print(f"{len(done)} after {time.monotonic() - start:.0f} s", flush=True)

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(work, mutants))
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    report(done, time.monotonic() - start)


def report(done, seconds):
    reasons = explained()
    with open(WORK / "log", "w") as log:
        for mutant, outcome in sorted(done, key=lambda it: (it[0].file, it[0].line)):
            log.write(f"{mutant}\n= {outcome or 'SURVIVED'}\n\n")
    judged = [(mutant, outcome) for mutant, outcome in done if outcome != "stillborn"]
    print(f"\n{'of':28}{'mutants':>8}{'caught':>8}{'explained':>10}{'missed':>8}")
    totals = [0, 0, 0, 0]
    of = lambda it: "launches" if isinstance(it[0], LaunchMutant) else f"kernels/{it[0].file}"
    for place, group in itertools.groupby(sorted(judged, key=of), of):
        group = list(group)
        caught = sum(outcome is not None for _, outcome in group)
        known = sum(outcome is None and mutant.key() in reasons for mutant, outcome in group)
        row = [len(group), caught, known, len(group) - caught - known]
        totals = [a + b for a, b in zip(totals, row)]
        print(f"{place:28}{row[0]:8}{row[1]:8}{row[2]:10}{row[3]:8}")
    print("\nsurvivors:")
    for mutant, outcome in sorted(judged, key=lambda it: (it[0].file, it[0].line)):
        if outcome is None:
            print(f"{mutant}\n= {reasons.get(mutant.key(), 'NOT EXPLAINED')}\n")
    count, caught, known, missed = totals
    share = caught / max(1, count - known)
    print(
        f"mutate: {caught} of {count} caught; {known} survivors explained, {missed} not; {share:.1%} of those that are "
        f"not explained caught; {len(done) - len(judged)} more did not compile or changed nothing; {seconds:.0f} s"
    )
    if share < BAR:
        sys.exit(1)


if __name__ == "__main__":
    main()
