#!/usr/bin/env python3
"""Writes stages.txt: codes and reconstructions by the published algorithms of three codecs, in f64.

    python3 tests/golden/make_stages.py > tests/golden/stages.txt

Standard library only. Transcribed are `ResidualVectorQuantize` of descript-audio-codec (dac/nn/quantize.py),
`SplitResidualVectorQuantizer` of moshi (moshi/quantization/vq.py and core_vq.py), and the residual quantizer of EnCodec
(encodec/quantization/core_vq.py), with weights that f32 holds. Vectors for which another codeword is nearly as near in any
stage are drawn again, so that f32 cannot decide otherwise than f64.

Format: per case a line `case NAME n d k runs`, and per run of stages `stages m w cosine on_vectors has_in has_out`, w lines
`in BITS...` and a line `in_bias BITS...`, m k lines `e BITS...`, d lines `out BITS...` and a line `out_bias BITS...` (f32
bits, hexadecimal; a bias there is none of is an empty line; no `in` or `out` lines where there is no such projection). Then
n lines `x BITS...`, n lines `codes NUMBERS`, and for s = 1, 2, ... stages n lines `y BITS...`: the reconstruction from the
first s numbers.
"""
import math
import random
import sys

from make_kmeans import f32, f32_bits

# What a squared distance must be above the least, as a part of both.
CLEAR = 1e-3


class Unclear(Exception):
    pass


def linear(weight, bias, x):
    y = [math.fsum(w * v for w, v in zip(row, x)) for row in weight]
    return [a + b for a, b in zip(y, bias)] if bias else y


def minus(a, b):
    return [u - v for u, v in zip(a, b)]


def plus(a, b):
    return [u + v for u, v in zip(a, b)]


def normalize(v, eps=1e-12):
    """torch.nn.functional.normalize"""
    length = max(math.sqrt(math.fsum(u * u for u in v)), eps)
    return [u / length for u in v]


def nearest(distances):
    order = sorted(range(len(distances)), key=lambda j: distances[j])
    best, second = distances[order[0]], distances[order[1]]
    if second - best < CLEAR * (abs(best) + abs(second)):
        raise Unclear
    return order[0]


def sq_distance(a, b):
    return math.fsum((u - v) * (u - v) for u, v in zip(a, b))


def euclidean(codebook, z):
    return nearest([sq_distance(z, e) for e in codebook])


def cosine(codebook, z):
    """VectorQuantize.decode_latents"""
    unit, units = normalize(z), [normalize(e) for e in codebook]
    square = math.fsum(u * u for u in unit)
    return nearest([square - 2 * math.fsum(u * v for u, v in zip(unit, e)) + math.fsum(v * v for v in e) for e in units])


class Run:
    """Stages that share projections."""

    def __init__(self, codebooks, by_cosine=False, on_vectors=False, into=None, out=None):
        self.codebooks, self.by_cosine, self.on_vectors, self.into, self.out = codebooks, by_cosine, on_vectors, into, out

    def encode(self, x):
        left, codes = linear(*self.into, x) if self.into else x, []
        for codebook in self.codebooks:
            codes.append((cosine if self.by_cosine else euclidean)(codebook, left))
            left = minus(left, codebook[codes[-1]])
        return codes

    def decode(self, codes):
        total = [0.0] * len(self.codebooks[0][0])
        for codebook, code in zip(self.codebooks, codes):
            total = plus(total, codebook[code])
        return linear(*self.out, total) if self.out else total


def encode(runs, x):
    codes, left = [], x
    for run in runs:
        codes.append(run.encode(x if run.on_vectors else left))
        left = minus(left, run.decode(codes[-1]))
    return [code for some in codes for code in some]


def decode(runs, codes, d):
    total = [0.0] * d
    for run in runs:
        some, codes = codes[: len(run.codebooks)], codes[len(run.codebooks) :]
        if some:
            total = plus(total, run.decode(some))
    return total


def lines(letter, rows):
    for row in rows:
        print(letter, *(f"{f32_bits(f32(v)):08x}" for v in row))


def case(name, rng, n, d, k, runs):
    print("case", name, n, d, k, len(runs))
    for run in runs:
        m, w = len(run.codebooks), len(run.codebooks[0][0])
        print("stages", m, w, int(run.by_cosine), int(run.on_vectors), int(bool(run.into)), int(bool(run.out)))
        if run.into:
            lines("in", run.into[0])
            lines("in_bias", [run.into[1] or []])
        lines("e", [e for codebook in run.codebooks for e in codebook])
        if run.out:
            lines("out", run.out[0])
            lines("out_bias", [run.out[1] or []])
    vectors, codes = [], []
    while len(vectors) < n:
        x = [f32(rng.gauss(0, 1)) for _ in range(d)]
        try:
            codes.append(encode(runs, x))
            vectors.append(x)
        except Unclear:
            pass
    lines("x", vectors)
    for row in codes:
        print("codes", *row)
    for s in range(1, len(codes[0]) + 1):
        lines("y", [decode(runs, row[:s], d) for row in codes])


def main():
    rng = random.Random(20261126)

    def matrix(rows, cols, scale=1.0):
        return [[f32(rng.gauss(0, scale)) for _ in range(cols)] for _ in range(rows)]

    def codebooks(m, k, w, scale, factor):
        return [matrix(k, w, scale * factor**s) for s in range(m)]

    case("encodec", rng, 9, 6, 11, [Run([codebook]) for codebook in codebooks(4, 11, 6, 1.0, 0.5)])

    def of_dac(scale):
        d, w, k = 10, 4, 13
        into = matrix(w, d, d**-0.5), matrix(1, w, 0.1)[0]
        out = matrix(d, w, scale * w**-0.5), matrix(1, d, 0.05)[0]
        return Run(codebooks(1, k, w, 1.0, 1.0), True, False, into, out)

    case("dac", rng, 12, 10, 13, [of_dac(0.8), of_dac(0.5), of_dac(0.3)])

    def of_mimi(m):
        d, w, k = 9, 5, 7
        return Run(codebooks(m, k, w, 0.9, 0.6), False, True, (matrix(w, d, d**-0.5), None), (matrix(d, w, w**-0.5), None))

    case("mimi", rng, 12, 9, 7, [of_mimi(1), of_mimi(3)])


if __name__ == "__main__":
    sys.exit(main())
