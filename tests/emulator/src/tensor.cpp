// Tensor cores: fragments as the PTX ISA lays them out over a warp (mma.m16n8k16, mma.m16n8k8, ldmatrix), and sums as
// they were measured (MMA-Sim, arXiv 2511.10909; Khattak and Mikaitis, arXiv 2512.07004): each step brings L products
// and the accumulator to the exponent of the largest, cuts them off after F fractional bits, adds them, and cuts the sum
// off to f32. F = 24 and L = 8 up to compute capability 8.9, F = 25 and L = 16 from 9.0; half as many products of TF32.
#include "tensor_core.h"
#include "block.h"
#include "checks.h"

#include <cmath>
#include <cstring>

namespace simulated {

// Takes apart a number of `exponent_bits` and `fraction_bits`: subnormal ones have the least exponent.
static Parts take_apart(unsigned bits, int exponent_bits, int fraction_bits) {
    int top = (1 << exponent_bits) - 1, exponent = (int)(bits >> fraction_bits) & top;
    int64_t significand = bits & ((1u << fraction_bits) - 1);
    if (exponent) significand |= (int64_t)1 << fraction_bits;
    bool negative = bits >> (exponent_bits + fraction_bits) & 1;
    return {negative ? -significand : significand, (exponent ? exponent : 1) - (top >> 1), exponent != top};
}

Operand operand_of(unsigned bits, Format format) {
    return {bits, take_apart(bits, format.exponent_bits, format.fraction_bits)};
}

static unsigned as_bits(float value) {
    unsigned bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

// An operand as f32, for products with infinities and NaN.
static float widened(unsigned bits, Format format) {
    Parts parts = take_apart(bits, format.exponent_bits, format.fraction_bits);
    if (parts.is_finite) return (float)std::ldexp((double)parts.significand, parts.exponent - format.fraction_bits);
    return parts.significand & (((int64_t)1 << format.fraction_bits) - 1) ? NAN : parts.significand < 0 ? -INFINITY : INFINITY;
}

// Cut off towards zero, as sign and magnitude.
static int64_t shifted(int64_t value, int by) {
    if (by >= 0) return value << by;
    uint64_t magnitude = value < 0 ? -(uint64_t)value : (uint64_t)value;
    magnitude = by < -63 ? 0 : magnitude >> -by;
    return value < 0 ? -(int64_t)magnitude : (int64_t)magnitude;
}

// An f64 cut off to f32.
static float cut_off(double value) {
    float nearest = (float)value;
    return std::fabs((double)nearest) > std::fabs(value) ? std::nextafter(nearest, 0.0f) : nearest;
}

float one_step(const Operand *a, const Operand *b, int count, Format format, float accumulator, int bits_kept) {
    Parts sum = take_apart(as_bits(accumulator), 8, 23);
    int64_t products[16];
    int exponents[16], top = sum.significand ? sum.exponent : INT32_MIN;
    bool is_finite = sum.is_finite;
    for (int i = 0; i < count; ++i) {
        const Parts &x = a[i].parts, &y = b[i].parts;
        products[i] = x.significand * y.significand;
        exponents[i] = x.exponent + y.exponent;
        is_finite = is_finite && x.is_finite && y.is_finite;
        if (products[i] && exponents[i] > top) top = exponents[i];
    }
    if (!is_finite) {
        for (int i = 0; i < count; ++i) accumulator += widened(a[i].bits, format) * widened(b[i].bits, format);
        // There is one NaN, without a sign.
        const unsigned nan = 0x7fffffff;
        if (std::isnan(accumulator)) memcpy(&accumulator, &nan, sizeof accumulator);
        return accumulator;
    }
    if (top == INT32_MIN) return 0;
    int unit = top - bits_kept;
    int64_t total = sum.significand ? shifted(sum.significand, sum.exponent - 23 - unit) : 0;
    for (int i = 0; i < count; ++i) {
        if (products[i]) total += shifted(products[i], exponents[i] - 2 * format.fraction_bits - unit);
    }
    // Fewer than 53 bits: exact until it is cut off.
    double real = (double)total * power_of_two(unit);
    return std::fabs(real) >= 0x1p128 ? (real < 0 ? -INFINITY : INFINITY) : cut_off(real);
}

// D = A B + C over all lanes, A [16, depth], B [depth, 8].
static void multiply(int kind, SimulatedProduct *const lanes[32]) {
    bool is_tf32 = kind == SIMULATED_MMA_TF32, is_hopper = settings().capability >= 90;
    Format format = is_tf32 ? Format{8, 10} : kind == SIMULATED_MMA_BF16 ? Format{8, 7} : Format{5, 10};
    int depth = is_tf32 ? 8 : 16, step = is_hopper ? depth : depth / 2;
    int bits_kept = (is_hopper ? 25 : 24) - settings().tensor_bits_lost;
    Operand a[16][16], b[8][16];
    auto operand = [&](unsigned bits) { return operand_of(bits, format); };
    for (int lane = 0; lane < 32; ++lane) {
        const SimulatedProduct &of = *lanes[lane];
        int group = lane / 4, in_group = lane % 4;
        for (int r = 0; r < 4; ++r) {
            int row = group + r % 2 * 8;
            if (is_tf32) {
                a[row][in_group + r / 2 * 4] = operand(of.a[r] >> 13);
            } else {
                a[row][2 * in_group + r / 2 * 8] = operand(of.a[r] & 0xffff);
                a[row][2 * in_group + r / 2 * 8 + 1] = operand(of.a[r] >> 16);
            }
        }
        for (int r = 0; r < 2; ++r) {
            if (is_tf32) {
                b[group][in_group + r * 4] = operand(of.b[r] >> 13);
            } else {
                b[group][2 * in_group + r * 8] = operand(of.b[r] & 0xffff);
                b[group][2 * in_group + r * 8 + 1] = operand(of.b[r] >> 16);
            }
        }
    }
    for (int lane = 0; lane < 32; ++lane) {
        for (int r = 0; r < 4; ++r) {
            int row = lane / 4 + r / 2 * 8, col = 2 * (lane % 4) + r % 2;
            float &sum = lanes[lane]->d[r];
            for (int t = 0; t < depth; t += step) sum = one_step(a[row] + t, b[col] + t, step, format, sum, bits_kept);
        }
    }
}

// Lane i brings row i % 8 of matrix i / 8; register m of a lane is what it holds of matrix m: two neighbours of row
// lane / 4, or of column lane / 4 of the transposed.
static void hand_out(bool transposed, SimulatedMatrices *const lanes[32]) {
    for (int lane = 0; lane < 32; ++lane) {
        for (int m = 0; m < 4; ++m) {
            unsigned halves[2];
            for (int i = 0; i < 2; ++i) {
                int row = transposed ? 2 * (lane % 4) + i : lane / 4, col = transposed ? lane / 4 : 2 * (lane % 4) + i;
                halves[i] = lanes[8 * m + row]->row[col / 2] >> (col % 2 * 16) & 0xffff;
            }
            lanes[lane]->to[m] = halves[0] | halves[1] << 16;
        }
    }
}

void meet_at_tensor_core(int kind, Thread *of) {
    if (kind >= SIMULATED_WGMMA_FENCE) return meet_at_wgmma(kind, of);
    void *brought[32];
    for (int i = 0; i < 32; ++i) {
        brought[i] = (void *)of[i].value;
        of[i].state = Thread::Ready;
    }
    if (kind == SIMULATED_MATRICES || kind == SIMULATED_MATRICES_TRANSPOSED) {
        hand_out(kind == SIMULATED_MATRICES_TRANSPOSED, (SimulatedMatrices *const *)brought);
    } else {
        multiply(kind, (SimulatedProduct *const *)brought);
    }
}

} // namespace simulated

using namespace simulated;

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED void simulated_matrix_row(const void *row, int line) {
    if (is_shared((uintptr_t)row) && (uintptr_t)row % 16 == 0) return;
    report("%s loads a row of a matrix in line %d from an address that is not %s", here().c_str(), line,
           is_shared((uintptr_t)row) ? "a multiple of 16" : "in shared memory");
    fail_launch(ILLEGAL_ADDRESS);
}

EXPORTED void simulated_copy_async(void *to, const void *from, unsigned bytes, int line) {
    const char *wrong = !is_shared((uintptr_t)to) ? "to what is not shared memory"
                      : (uintptr_t)to % 16 ? "to what is not a multiple of 16"
                      : (uintptr_t)from % 16 ? "from what is not a multiple of 16"
                      : bytes > 16 ? "more than 16 bytes" : nullptr;
    if (wrong) {
        report("%s copies asynchronously, in line %d, %s", here().c_str(), line, wrong);
        fail_launch(ILLEGAL_ADDRESS);
    }
    if (bytes) check_access(from, bytes, READ);
    check_access(to, 16, WRITE);
    poison(to, 16);
    forget_shared((uintptr_t)to, 16);
    Thread &me = *block.current;
    me.copies.push_back({to, from, bytes, me.groups});
}

EXPORTED void simulated_copy_commit() { ++block.current->groups; }

EXPORTED void simulated_copy_wait(unsigned groups_left) {
    Thread &me = *block.current;
    size_t done = 0;
    for (; done < me.copies.size() && me.copies[done].group + groups_left < me.groups; ++done) {
        const AsyncCopy &copy = me.copies[done];
        if (copy.bytes) check_access(copy.from, copy.bytes, READ);
        check_access(copy.to, 16, WRITE);
        memcpy(copy.to, copy.from, copy.bytes);
        memset((char *)copy.to + copy.bytes, 0, 16 - copy.bytes);
    }
    me.copies.erase(me.copies.begin(), me.copies.begin() + done);
}
