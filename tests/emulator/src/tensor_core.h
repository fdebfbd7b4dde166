// The arithmetic of tensor cores, tensor.cpp.
#pragma once

#include <cstdint>
#include <cstring>

namespace simulated {

struct Format { int exponent_bits, fraction_bits; };
// A number as significand 2^(exponent - bits), as the unit takes it apart.
struct Parts { int64_t significand; int exponent; bool is_finite; };
// An operand, and what it is apart.
struct Operand { unsigned bits; Parts parts; };

// 2^exponent, of any exponent that an f64 has at full precision.
inline double power_of_two(int exponent) {
    uint64_t bits = (uint64_t)(exponent + 1023) << 52;
    double power;
    memcpy(&power, &bits, sizeof power);
    return power;
}

Operand operand_of(unsigned bits, Format format);
// The accumulator and `count` products, at most 16, cut off after `bits_kept` fractional bits of the largest.
float one_step(const Operand *a, const Operand *b, int count, Format format, float accumulator, int bits_kept);

// halves.cpp: sixteen operands of f16, side by side.
struct Halves {
    int significands[16], exponents[16];
    unsigned short bits[16];
    bool are_finite;
};
void take_apart(const unsigned short bits[16], Halves &to);
// As `one_step` of these.
float step_of_halves(const Halves &a, const Halves &b, float accumulator, int bits_kept);

} // namespace simulated
