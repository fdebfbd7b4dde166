#!/usr/bin/env python3
"""Writes ema.txt: codebooks that follow their batches, transcribed from the documentation of EmaCodebook and normalize.

    python3 tests/golden/make_ema.py > tests/golden/ema.txt

Standard library only. Python's floats are f64, each operation rounded on its own; labels and quotients that are rounded
once go through rational numbers. There are fewer rows than a block has, so that a sum runs over all rows of a label.

Format: per case a line `case NAME k d decay epsilon threshold seed cosine steps` and k lines `e BITS...` (f32 bits,
hexadecimal) of the start. Per step a line `step n`, n lines `x BITS...`, then `labels ...`, `N BITS...` (f64), k lines
`m BITS...` (f64), k lines `e BITS...`, and `usage rows perplexity unused dead revived`.
"""
import math
import random
import struct
import sys
from fractions import Fraction

from make_kmeans import ChaCha8, f32, f32_bits, round_f32, sq_distance


def f64_bits(value):
    return struct.pack(">d", value).hex()


def quotient(a, b):
    return round_f32(Fraction(a) / Fraction(b))


def direction(v):
    """None where there is none."""
    lanes = [0.0] * 8
    for t, value in enumerate(v):
        lanes[t % 8] += value * value
    a, b, c, d, e, f, g, h = lanes
    length = math.sqrt(((a + b) + (c + d)) + ((e + f) + (g + h)))
    return [quotient(value, length) for value in v] if length > 0 else None


class Ema:
    def __init__(self, start, decay, epsilon, threshold, seed, cosine):
        self.decay, self.epsilon, self.threshold, self.seed, self.cosine = decay, epsilon, threshold, seed, cosine
        self.e = [direction(e) for e in start] if cosine else [list(e) for e in start]
        self.N = [threshold if threshold > 0 else 1.0] * len(start)
        self.m = [[n * v for v in e] for n, e in zip(self.N, self.e)]
        self.steps = 0

    def update(self, x):
        self.steps += 1
        k, d = len(self.e), len(self.e[0])
        if self.cosine:
            x = [direction(z) for z in x]
        labels = [min((sq_distance(z, e), j) for j, e in enumerate(self.e))[1] for z in x]
        counts, new = [labels.count(j) for j in range(k)], 1.0 - self.decay
        for j in range(k):
            s = [0.0] * d
            for z, label in zip(x, labels):
                if label == j:
                    s = [a + b for a, b in zip(s, z)]
            self.N[j] = self.decay * self.N[j] + new * counts[j]
            self.m[j] = [self.decay * a + new * b for a, b in zip(self.m[j], s)]
        n = 0.0
        for size in self.N:
            n += size
        for j in range(k):
            if self.cosine:
                self.e[j] = counts[j] and direction(self.m[j]) or self.e[j]
            else:
                size = (self.N[j] + self.epsilon) / (n + k * self.epsilon) * n
                self.e[j] = [quotient(v, size) for v in self.m[j]]
        dead = [j for j in range(k) if self.N[j] < self.threshold]
        revived, rows, rng = 0, list(range(len(x))), ChaCha8(self.seed, self.steps)
        taken = [list(e) for e in self.e]
        for i in range(len(rows)):
            if revived == len(dead):
                break
            j = i + rng.below(len(rows) - i)
            rows[i], rows[j] = rows[j], rows[i]
            row = x[rows[i]]
            if row not in taken:
                taken.append(row)
                j = dead[revived]
                self.e[j], self.N[j] = list(row), self.threshold
                self.m[j] = [self.threshold * v for v in row]
                revived += 1
        p = [c / len(x) for c in counts if c]
        return labels, (len(x), repr(math.exp(-math.fsum(q * math.log(q) for q in p))), counts.count(0), len(dead), revived)


def case(name, start, batches, decay=0.99, epsilon=1e-5, threshold=0.0, seed=0, cosine=False):
    def rows(letter, values, bits=f32_bits):
        for row in values:
            print(letter, *(bits(v) if bits is f64_bits else f"{bits(v):08x}" for v in row))

    print("case", name, len(start), len(start[0]), decay, epsilon, threshold, seed, int(cosine), len(batches))
    rows("e", start)
    ema = Ema(start, decay, epsilon, threshold, seed, cosine)
    for x in batches:
        print("step", len(x))
        rows("x", x)
        labels, usage = ema.update(x)
        print("labels", *labels)
        rows("N", [ema.N], f64_bits)
        rows("m", ema.m, f64_bits)
        rows("e", ema.e)
        print("usage", *usage)


def main():
    rng = random.Random(20261124)

    def rows(n, d, wild=0):
        return [[f32(rng.gauss(0, 1) * 2.0 ** rng.randint(-wild, wild)) for _ in range(d)] for _ in range(n)]

    case("defaults", rows(4, 3), [rows(9, 3) for _ in range(3)])
    case("wild", rows(3, 2, 30), [rows(8, 2, 30) for _ in range(3)], decay=0.875, epsilon=0.1)
    case("last_batch_alone", rows(5, 2), [rows(6, 2) for _ in range(2)], decay=0.0, epsilon=1e-30)
    case("revived", rows(6, 2), [rows(11, 2) for _ in range(4)], decay=0.5, threshold=1.5, seed=2**63 + 5)
    # Three different rows, and more dead codewords than that.
    few = [[1.0, 0.0], [0.0, 1.0], [1.0, -0.0], [4.0, 4.0], [0.0, 1.0]]
    case("rows_run_out", [[4.0, 4.0]] + [[100.0 + i, 0.0] for i in range(5)], [few] * 2, 0.5, 1e-5, 3.0, 9)
    case("cosine", rows(4, 11, 3), [rows(9, 11, 3) for _ in range(3)], decay=0.75, cosine=True)
    case("cosine_revived", rows(7, 3), [rows(8, 3, 20) for _ in range(3)], 0.5, 1e-5, 0.75, 3, True)
    # Rows that cancel leave a codeword where it is, and one without rows keeps its direction.
    case("cosine_cancels", [[1.0, 0.0], [0.0, 1.0]], [[[0.0, 3.0], [2.0, 2.0], [2.0, -2.0], [0.0, 2.0]]] * 2, 0.0, cosine=True)
    case("cosine_opposite", [[1.0, 0.0]], [[[0.0, 3.0], [0.0, -2.0]]], 0.0, cosine=True)


if __name__ == "__main__":
    sys.exit(main())
