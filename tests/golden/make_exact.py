#!/usr/bin/env python3
"""Writes exact.txt: nearest codewords and squared distances of adversarial f32 data, by rational arithmetic.

    python3 tests/golden/make_exact.py > tests/golden/exact.txt

Standard library only. Every number is computed as a fraction of integers; floats occur nowhere but as bit patterns.

Format: per case a line `case NAME n k d`, n lines `x BITS...`, k lines `e BITS...` (f32 bits, hexadecimal), and n
lines `near LABEL:BITS ...` with the min(k, 3) nearest codewords in order of distance and then index, each with its
squared distance rounded to the nearest-even f32.
"""
import random
import sys
from fractions import Fraction
from itertools import product

rng = random.Random(20240229)
MAX = 0x7F7FFFFF  # the largest finite f32


def value(bits):
    """The rational number an f32 pattern stands for."""
    exponent, fraction = bits >> 23 & 0xFF, bits & 0x7FFFFF
    assert exponent != 255
    if exponent == 0:
        magnitude = Fraction(fraction, 2**149)
    else:
        magnitude = Fraction(fraction | 0x800000) * Fraction(2) ** (exponent - 150)
    return -magnitude if bits >> 31 else magnitude


def nearest_even(q):
    """Bits of the f32 nearest to q >= 0, to even between two, infinite from half a step above the largest."""
    if q == 0:
        return 0
    exponent = -126  # of the leading bit; subnormal numbers share the lowest
    while q >= Fraction(2) ** (exponent + 1):
        exponent += 1
        if exponent > 127:
            return 0x7F800000
    step = Fraction(2) ** (exponent - 23)
    below = q // step
    rest = q - below * step
    if rest * 2 > step or (rest * 2 == step and below % 2 == 1):
        below += 1
    # Numbers of one sign are ordered as their patterns, so a carry runs into the exponent and up to infinity.
    return (exponent + 126 << 23) + below


def bits_of(q):
    """The pattern of a rational number that is an f32 exactly."""
    pattern = nearest_even(abs(q))
    assert value(pattern) == abs(q), q
    return pattern | (0x80000000 if q < 0 else 0)


def two(exponent):
    return Fraction(2) ** exponent


# ---- data ----------------------------------------------------------------------------------------------------------

def near_scale(scale):
    """Bits of a random number of about this size, of either sign."""
    q = Fraction(scale) * Fraction(rng.randrange(-(2**26), 2**26), 2**26)
    return nearest_even(abs(q)) | rng.getrandbits(1) << 31


def any_finite():
    while True:
        bits = rng.getrandbits(32)
        if bits >> 23 & 0xFF != 255:
            return bits


def rows(count, d, draw):
    return [[draw() for _ in range(d)] for _ in range(count)]


def step(bits, by):
    """`by` patterns further along, away from zero where positive; stays finite and of one sign."""
    magnitude = min(max((bits & 0x7FFFFFFF) + by, 0), MAX)
    return bits & 0x80000000 | magnitude


def jitter(row, by):
    return [step(bits, rng.randint(-by, by)) for bits in row]


def four_squares(number):
    """Integers below 2^24 whose squares sum to `number`, found by search."""
    root = int(number**0.5) + 2
    for a in range(root, -1, -1):
        left = number - a * a
        if left < 0:
            continue
        for b in range(int(left**0.5) + 1, -1, -1):
            rest = left - b * b
            if rest < 0:
                continue
            c = int(rest**0.5)
            while c * c * 2 >= rest and c >= 0:
                e = rest - c * c
                r = int(e**0.5)
                for candidate in (r - 1, r, r + 1):
                    if candidate >= 0 and candidate * candidate == e:
                        return [a, b, c, candidate]
                c -= 1
    raise ValueError(number)


def cases():
    one = bits_of(Fraction(1))

    # One distance each: what is rounded, and how. x against a single codeword at the origin or close to x.
    squares = []
    for number in [2**24 + 1, 2**24 + 3, 2**25 - 1, 2**25 - 3, 2**24 + 2 * rng.randrange(2**22) + 1]:
        squares.append((number, four_squares(number)))
    for number, parts in squares:
        # The sum of squares is an odd integer of 25 bits: the exact middle between two f32, at every scale.
        for shift in [0, -20, -60, -70, -75, 40, 51]:
            x = [bits_of(part * two(shift)) for part in parts]
            if number == 2**24 + 1 and shift == -60:
                yield "midpoint and one subnormal square above", [x + [1]], [[0] * 5]
            yield "midpoint", [x], [[0] * 4]
            yield "just above a midpoint", [x + [bits_of(two(shift - 40))]], [[0] * 5]
            # Every component p moved by the smallest number t: (p - t)^2 = p^2 - 2pt + t^2 lies just below.
            yield "moved below a midpoint by the smallest number", [x], [[1] * 4]
    # At the top: 2^128 - 2^103 is the middle between the largest f32 and 2^128, and rounds to infinity.
    top = [bits_of(part * two(51)) for part in four_squares(2 * (2**25 - 1))]
    yield "middle between the largest and infinity", [top], [[0] * 4]
    yield "just below that middle", [top], [[1] * 4]
    yield "just above that middle", [top + [1]], [[0] * 5]
    top = [bits_of(part * two(51)) for part in four_squares(2 * (2**25 - 2))]
    yield "the largest", [top], [[0] * 4]
    lowest = MAX | 1 << 31
    yield "beyond the largest everywhere", [[MAX] * 3, [MAX, lowest, 0]], [[lowest] * 3, [0] * 3, [MAX, 0, 0]]
    # At the bottom: 2^-150 is the middle between zero and the smallest f32, 3 * 2^-150 the next.
    t = bits_of(two(-75))
    yield "middle above zero", [[t]], [[0]]
    yield "just above that middle", [[t, 1]], [[0, 0]]
    yield "just below that middle", [[t]], [[1]]
    yield "middle above the smallest", [[t, t, t]], [[0, 0, 0]]
    yield "just below the middle above the smallest", [[t, t, t]], [[0, 1, 0]]
    yield "underflow", [[1, 0x80000001]], [[0x80000001, 1], [0, 0], [2, 2]]
    largest_subnormal = [bits_of(part * two(-75)) for part in four_squares(2**24 - 1)]
    yield "middle between subnormal and normal", [largest_subnormal], [[0] * 4]
    yield "just below the middle between subnormal and normal", [largest_subnormal], [[1] * 4]
    for _ in range(24):
        d = rng.choice([1, 2, 3, 7])
        scale = two(rng.randrange(-149, 127))
        draw = lambda: near_scale(scale)
        yield "one distance at a random scale", rows(2, d, draw), rows(1, d, draw)

    # Many codewords.
    for exponent in [-45, -40, -38, -30, -23, -22, -21, -20, -19, -18, -12, -3, 0, 4, 12, 18, 19, 20, 25, 38]:
        scale = 3 * Fraction(10) ** exponent
        draw = lambda: near_scale(scale)
        d = rng.choice([1, 2, 3, 5, 9])
        yield f"scale 3e{exponent}", rows(4, d, draw), rows(rng.choice([3, 8, 9]), d, draw)
    for _ in range(16):
        d, k = rng.choice([1, 2, 5, 8]), rng.choice([2, 7, 17])
        yield "any finite patterns", rows(3, d, any_finite), rows(k, d, any_finite)
    for _ in range(8):
        d = rng.choice([2, 4, 6])
        scales = [two(rng.randrange(-140, 120)) for _ in range(d)]
        draw = lambda: [near_scale(scale) for scale in scales]
        yield "a scale per dimension", [draw() for _ in range(4)], [draw() for _ in range(9)]
    for _ in range(6):
        d = rng.choice([1, 2, 3])
        grid = lambda: bits_of(Fraction(rng.randrange(-2, 3)))
        yield "small integers, many ties", rows(6, d, grid), rows(12, d, grid)
    corners = [[bits_of(Fraction(s)) for s in signs] for signs in product([1, -1], repeat=4)]
    yield "corners of a cube from its centre", [[0] * 4, [0x80000000] * 4], corners
    yield "zero codewords of either sign", [[0, 0], [0x80000000, 0], [one, one]], [[0x80000000, 0], [0, 0], [0, 0x80000000]]
    for _ in range(4):
        d = rng.choice([2, 5])
        base = rows(4, d, lambda: near_scale(10))
        copies = [base[i] for i in [2, 0, 2, 1, 3, 0, 1, 3, 2]]
        yield "copies", [jitter(row, 3) for row in base] + base[:2], copies
    for by in [1, 2, 100]:
        for scale in [Fraction(1), Fraction(10**4), two(-130), two(100)]:
            centre = [near_scale(scale) for _ in range(3)]
            yield f"within {by} steps of each other", [jitter(centre, by) for _ in range(4)], [jitter(centre, by) for _ in range(9)]
    for _ in range(6):
        # Codewords either side of a row, equally far in real numbers; then one of the three moved by one step.
        d = rng.choice([1, 3, 4])
        middle = [Fraction(rng.randrange(-(2**22), 2**22)) for _ in range(d)]
        offset = [Fraction(rng.randrange(1, 2**22)) for _ in range(d)]
        scale = two(rng.randrange(-120, 80))
        x = [bits_of(m * scale) for m in middle]
        a = [bits_of((m + o) * scale) for m, o in zip(middle, offset)]
        b = [bits_of((m - o) * scale) for m, o in zip(middle, offset)]
        yield "exact midpoint of two codewords", [x], [a, b]
        yield "midpoint moved by one step", [[step(x[0], 1)] + x[1:], [step(x[0], -1)] + x[1:]], [a, b]
        yield "codeword moved by one step", [x], [a, [step(b[0], 1)] + b[1:], [step(b[0], -1)] + b[1:]]
    for _ in range(10):
        # Distances that agree in their first 60 to 290 bits: f64 cannot tell them apart.
        deep = [two(rng.randrange(-149, -40)) for _ in range(5)]
        big = [bits_of(Fraction(rng.randrange(1, 2**24)) * two(-12)) for _ in range(3)]
        shuffled = [rng.sample(big, 3) for _ in range(5)]
        yield "equal up to far below f64", [[0, 0, 0, 0]], [row + [bits_of(t)] for row, t in zip(shuffled, deep)]
        x = [0, 0, 0, bits_of(rng.choice([1, -1]) * min(deep))]
        mirrored = [row + [bits_of(sign * Fraction(1))] for row, sign in zip(shuffled, [1, -1, 1, -1, -1])]
        yield "x below its own midpoint by next to nothing", [x], mirrored
    for _ in range(6):
        # Large opposite terms: the sum of squares is small against every product in its expansion.
        base = [near_scale(two(60)) for _ in range(4)]
        yield "cancellation", [jitter(base, 2) for _ in range(3)], [jitter(base, 2) for _ in range(10)]
    far = rows(6, 3, lambda: near_scale(1))
    far[3] = [near_scale(10**4) for _ in range(3)]
    yield "one codeword far longer", rows(6, 3, lambda: near_scale(1)), far
    bfloat = lambda: near_scale(8) & 0xFFFF0000
    yield "bfloat values", rows(4, 4, bfloat), rows(11, 4, bfloat)
    draw = lambda: near_scale(two(-1))
    yield "a longer row", rows(2, 131, draw), rows(3, 131, draw)
    yield "no rows", [], rows(2, 3, draw)


def main():
    out = sys.stdout
    for name, x, e in cases():
        d = len(e[0])
        assert all(len(row) == d for row in x + e), name
        out.write(f"case {name.replace(' ', '_')} {len(x)} {len(e)} {d}\n")
        for letter, matrix in (("x", x), ("e", e)):
            for row in matrix:
                out.write(f"{letter} {' '.join(f'{bits:08x}' for bits in row)}\n")
        codewords = [[value(bits) for bits in row] for row in e]
        for row in x:
            point = [value(bits) for bits in row]
            distances = [sum((a - b) ** 2 for a, b in zip(point, codeword)) for codeword in codewords]
            order = sorted(range(len(e)), key=lambda j: (distances[j], j))[:3]
            out.write("near " + " ".join(f"{j}:{nearest_even(distances[j]):08x}" for j in order) + "\n")


if __name__ == "__main__":
    main()
