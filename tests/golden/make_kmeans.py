#!/usr/bin/env python3
"""Writes kmeans.txt: whole k-means runs, transcribed from the documentation, labels and distances by rational arithmetic.

    python3 tests/golden/make_kmeans.py > tests/golden/kmeans.txt

Standard library only, ChaCha8 included. Python's floats are f64 and add one by one, as the sums of k-means do; there are
fewer rows than a block has, so that a sum runs over all rows of a label.

Format: per case a line `case NAME n k d init seed iterations n_init batch` (0: no mini-batches), n lines `x WEIGHT BITS...` (f32 bits, hexadecimal),
for init `given` k lines `e BITS...`; then k lines `c BITS...` of codewords, `labels ...`, `curve BITS...` (f64) and
`run NUMBER`.
"""
import random
import struct
import sys
from fractions import Fraction
from math import isqrt

MASK = 0xFFFFFFFF


def f32_bits(value):
    return struct.unpack("<I", struct.pack("<f", value))[0]


def round_f32(q):
    """The f32 nearest to a fraction, to even between two, as a float. No overflow in these cases."""
    if q < 0:
        return -round_f32(-q)
    if q == 0:
        return 0.0
    exponent = -149
    while q >= Fraction(2) ** (exponent + 24):
        exponent += 1
    return float(round(q / Fraction(2) ** exponent) * Fraction(2) ** exponent)  # round(): half to even


class ChaCha8:
    """The key stream as 64-bit numbers; a counter of 64 bits, then the stream's number."""

    def __init__(self, seed, stream):
        self.key = [seed & MASK, seed >> 32, 0, 0, 0, 0, 0, 0]
        self.stream, self.block, self.words = stream, 0, []

    def next(self):
        if not self.words:
            self.refill()
        low, high = self.words.pop(0), self.words.pop(0)
        return high << 32 | low

    def refill(self):
        start = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *self.key]
        start += [self.block & MASK, self.block >> 32, self.stream & MASK, self.stream >> 32]
        s = list(start)

        def quarter(a, b, c, d):
            for x, y, z, by in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)]:
                s[x] = (s[x] + s[y]) & MASK
                turned = s[z] ^ s[x]
                s[z] = (turned << by | turned >> (32 - by)) & MASK

        for _ in range(4):
            for i in range(4):
                quarter(i, 4 + i, 8 + i, 12 + i)
            for i in range(4):
                quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
        self.words = [(a + b) & MASK for a, b in zip(s, start)]
        self.block += 1

    def below(self, bound):
        while True:
            product = self.next() * bound
            if product % 2**64 >= 2**64 % bound:
                return product >> 64

    def unit(self):
        return (self.next() >> 11) / 2**53


def sq_distance(z, e):
    return sum((Fraction(a) - Fraction(b)) ** 2 for a, b in zip(z, e))


def pick(shares, part):
    """One block only: fewer than 4096 rows."""
    goal, passed, picked = part * sum(shares, 0.0), 0.0, None
    if not any(shares):
        return None
    for i, share in enumerate(shares):
        if share > 0:
            picked, passed = i, passed + share
            if passed > goal:
                break
    return picked


def plus_plus(x, w, k, rng):
    chosen = [x[pick(w, rng.unit())]]
    while len(chosen) < k:
        part = rng.unit()
        shares = [w[i] * min(round_f32(sq_distance(z, e)) for e in chosen) for i, z in enumerate(x)]
        row = pick(shares, part)
        chosen.append(x[pick(w, part) if row is None else row])
    return chosen


def parallel(x, w, k, rng):
    """k-means|| with l = 2k and five rounds."""
    candidates = [x[pick(w, rng.unit())]]
    for _ in range(5):
        shares = [w[i] * min(round_f32(sq_distance(z, e)) for e in candidates) for i, z in enumerate(x)]
        total = sum_in_order(shares)
        parts = [rng.unit() for _ in x]
        picked = [i for i, part in enumerate(parts) if part * total < 2.0 * k * shares[i]]
        if not picked:
            break
        candidates += [x[i] for i in picked]
    weights = [0.0] * len(candidates)
    for z, weight in zip(x, w):
        distances = [round_f32(sq_distance(z, e)) for e in candidates]
        # Of a round its label, which is that of the real distance; of two rounds the earlier one, unless the later is
        # nearer as an f32. No two candidates of one round are equally near in these cases without being equal.
        weights[distances.index(min(distances))] += weight
    return plus_plus(candidates, weights, k, rng)


def minibatch(x, w, codewords, iterations, batch, seed, run):
    """Sculley's algorithm 1, and one pass over all rows in the end."""
    seen, curve = [0.0] * len(codewords), []
    for iteration in range(iterations):
        rng = ChaCha8(seed, run + ((iteration + 1) << 32))
        rows = sorted(rng.below(len(x)) for _ in range(batch))
        nearest = [min((sq_distance(x[i], e), j) for j, e in enumerate(codewords)) for i in rows]
        inertia = sum_in_order(w[i] * round_f32(real) for i, (real, _) in zip(rows, nearest))
        curve.append(inertia * (len(x) / batch))
        wide = [list(e) for e in codewords]
        for i, (_, j) in zip(rows, nearest):
            if w[i] > 0:
                seen[j] += w[i]
                eta = w[i] / seen[j]
                wide[j] = [(1.0 - eta) * e + eta * z for e, z in zip(wide[j], x[i])]
        codewords = [[round_f32(Fraction(value)) for value in e] for e in wide]
    codewords, labels, last = lloyd(x, w, codewords, 0)
    return codewords, labels, curve + last


def sum_in_order(values):
    total = 0.0
    for value in values:
        total += value
    return total


def drawn(rows, count, rng):
    rows = list(rows)
    for i in range(count):
        j = i + rng.below(len(rows) - i)
        rows[i], rows[j] = rows[j], rows[i]
    return rows[:count]


def start(x, w, k, init, rng):
    if init == "parallel":
        return parallel(x, w, k, rng)
    if init == "random":
        return [x[i] for i in drawn([i for i in range(len(x)) if w[i] > 0], k, rng)]
    if init == "hierarchical":
        return hierarchical(x, w, k, rng)
    return plus_plus(x, w, k, rng)


def hierarchical(x, w, k, rng):
    parts = isqrt(k)
    sample = start(x, w, min(sum(weight > 0 for weight in w), 256 * parts), "random", rng)
    once = [1.0] * len(sample)
    upper = lloyd(sample, once, plus_plus(sample, once, parts, ChaCha8(rng.next(), 0)), 10)[0]
    rows = [[] for _ in upper]
    for i, z in enumerate(x):
        if w[i] > 0:
            rows[min((sq_distance(z, e), j) for j, e in enumerate(upper))[1]].append(i)
    exact = [Fraction(k * len(part), sum(map(len, rows))) for part in rows]
    shares = [int(share) for share in exact]
    for j in sorted(range(parts), key=lambda j: shares[j] - exact[j])[: k - sum(shares)]:
        shares[j] += 1
    codewords = []
    for part, share, seed in zip(rows, shares, [rng.next() for _ in rows]):
        if len(part) > 256 * share:
            part = sorted(drawn(part, 256 * share, ChaCha8(seed, 1)))
        if share:
            own, weights = [x[i] for i in part], [w[i] for i in part]
            codewords += lloyd(own, weights, plus_plus(own, weights, share, ChaCha8(seed, 0)), 10)[0]
    return codewords


def lloyd(x, w, codewords, iterations):
    curve = []
    while True:
        labels, distances = [], []
        for z in x:
            real, label = min((sq_distance(z, e), j) for j, e in enumerate(codewords))
            labels.append(label)
            distances.append(round_f32(real))
        shares = [a * b for a, b in zip(w, distances)]
        curve.append(0.0)
        for share in shares:
            curve[-1] += share
        if len(curve) > iterations:
            return codewords, labels, curve
        moved, dead = [], []
        for j, old in enumerate(codewords):
            total, sums = 0.0, [0.0] * len(old)
            for i, z in enumerate(x):
                if labels[i] == j:
                    total += w[i]
                    sums = [s + w[i] * v for s, v in zip(sums, z)]
            if total > 0:
                moved.append([round_f32(Fraction(s) / Fraction(total)) for s in sums])
            else:
                moved.append(old)
                dead.append(j)
        far = sorted((i for i in range(len(x)) if shares[i] > 0), key=lambda i: (-shares[i], i))
        far = [i for n, i in enumerate(far) if x[i] not in moved and x[i] not in [x[other] for other in far[:n]]]
        for j, i in zip(dead, far):
            moved[j] = x[i]
        if moved == codewords:
            return codewords, labels, curve
        codewords = moved


def case(name, x, k, init, seed=0, iterations=25, n_init=1, w=None, e=None, batch=0):
    weights = w or [1.0] * len(x)
    print("case", name, len(x), k, len(x[0]), init, seed, iterations, n_init, batch)
    for weight, row in zip(weights, x):
        print("x", *(f"{f32_bits(v):08x}" for v in [weight, *row]))
    for row in e or []:
        print("e", *(f"{f32_bits(v):08x}" for v in row))
    best = None
    for run in range(n_init):
        codewords = e or start(x, weights, k, init, ChaCha8(seed, run))
        if batch:
            fit = minibatch(x, weights, codewords, iterations, batch, seed, run)
        else:
            fit = lloyd(x, weights, codewords, iterations)
        if best is None or fit[2][-1] < best[0][2][-1]:
            best = (fit, run)
    (codewords, labels, curve), run = best
    for row in codewords:
        print("c", *(f"{f32_bits(v):08x}" for v in row))
    print("labels", *labels)
    print("curve", *(struct.pack(">d", value).hex() for value in curve))
    print("run", run)


def f32(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


def main():
    assert ChaCha8(0, 0).next() == 0xD6405F892FEF003E, "the published key stream"
    rng = random.Random(20260211)

    def rows(n, d, scale=1.0, offset=0.0):
        return [[f32(offset + scale * rng.gauss(0, 1)) for _ in range(d)] for _ in range(n)]

    case("random_rows", rows(70, 3), 5, "random", seed=1)
    case("plus_plus", rows(60, 2), 6, "plus_plus", seed=2)
    case("cut_short", rows(80, 4), 7, "random", seed=2**64 - 3, iterations=2)
    case("no_iteration", rows(20, 2), 4, "plus_plus", seed=9, iterations=0)
    case("five_runs", rows(50, 2), 6, "random", seed=11, n_init=5)
    case("far_off_centre", rows(40, 3, 0.01, 1000.0), 4, "plus_plus", seed=4)
    weights = [f32(rng.choice([0.0, 0.5, 1.0, 3.7, 1e-3])) for _ in range(60)]
    case("weighted_random_rows", rows(60, 3), 6, "random", seed=5, w=weights)
    case("weighted_plus_plus", rows(60, 3), 6, "plus_plus", seed=6, w=weights)
    whole = [[float(rng.randrange(-3, 4)) for _ in range(2)] for _ in range(50)]
    case("ties", whole, 8, "random", seed=7)
    case("few_different_rows", [[float(i % 3), 1.0] for i in range(12)], 6, "plus_plus", seed=8)
    case("all_rows_equal", [[f32(0.1), -2.5]] * 9, 4, "random", seed=8)
    # Codewords far away get no row: three rows that are far from their codewords take their places, ties by index.
    dead = [[0.0], [0.0], [1.0], [-9.0], [9.0], [-9.0], [8.0]]
    case("dead_codewords", dead, 4, "given", e=[[0.0], [500.0], [600.0], [700.0]])
    case("dead_codewords_one_step", dead, 4, "given", iterations=1, e=[[0.0], [500.0], [600.0], [700.0]])
    heavy = [1.0, 1.0, 1.0, 0.0, 0.5, 1.0, 0.25]
    case("dead_codewords_weighted", dead, 3, "given", iterations=1, w=heavy, e=[[0.0], [500.0], [600.0]])
    # A share too large to show what the others gain; copies of the farthest row, and one that is a mean already.
    case("inertia_too_large_to_show_gains", [[v] for v in [0.0, 1.0, 2.0, 3.0, 50.0, f32(1.5e11), f32(2.5e11)]], 3,
         "given", e=[[0.0], [1.0], [f32(2e11)]])
    copies = [[0.0], [1.0], [20.0], [30.0], [30.0], [30.0], [7.0]]
    case("dead_codewords_and_copies", copies, 5, "given", e=[[0.0], [26.0], [500.0], [600.0], [700.0]])
    case("dead_codeword_and_a_mean", [[0.0], [f32(0.1)], [20.0]], 3, "given", iterations=1, e=[[0.0], [15.0], [1000.0]])
    case("one_codeword", rows(30, 5), 1, "plus_plus", seed=3)
    case("parallel", rows(90, 3), 6, "parallel", seed=12)
    case("parallel_start", rows(120, 2), 9, "parallel", seed=13, iterations=0, n_init=2)
    case("parallel_weighted", rows(60, 3), 5, "parallel", seed=14, iterations=1, w=weights)
    case("parallel_few_different_rows", [[float(i % 3), 1.0] for i in range(12)], 6, "parallel", seed=15)
    case("parallel_all_rows_equal", [[f32(0.1), -2.5]] * 9, 4, "parallel", seed=16)
    case("batches", rows(70, 3), 5, "random", seed=17, iterations=6, batch=20)
    case("batches_weighted", rows(60, 3), 4, "plus_plus", seed=18, iterations=5, n_init=3, w=weights, batch=16)
    case("batch_larger_than_the_rows", rows(13, 2), 4, "random", seed=2**64 - 1, iterations=4, batch=40)
    case("batches_and_parallel", rows(50, 2), 3, "parallel", seed=19, iterations=3, batch=1)
    case("batches_and_codewords_without_rows", dead, 4, "given", iterations=3, e=[[0.0], [500.0], [600.0], [700.0]],
         batch=5)
    case("hierarchical", rows(90, 2), 11, "hierarchical", seed=4, iterations=2)
    case("hierarchical_start", rows(40, 3), 9, "hierarchical", seed=5, iterations=0)
    weights = [f32(rng.choice([0.0, 1.0, 2.5])) for _ in range(50)]
    case("hierarchical_weighted", rows(50, 2), 7, "hierarchical", seed=6, iterations=1, w=weights)
    case("hierarchical_equal_rows", [[f32(0.3), 4.0]] * 12, 5, "hierarchical", seed=7)
    case("hierarchical_one", rows(9, 2), 1, "hierarchical", seed=7)
    case("hierarchical_of_many_rows", rows(300, 1), 1, "hierarchical", seed=8, iterations=0)


if __name__ == "__main__":
    sys.exit(main())
