// Arithmetic with another rounding than to nearest. Compiled with -frounding-math.
#include <cfenv>
#include <cmath>

#include "../include/simulated/rounding.h"

struct Rounding {
    int before;
    explicit Rounding(int which) : before(fegetround()) {
        fesetround(which == SIMULATED_DOWN ? FE_DOWNWARD : which == SIMULATED_UP ? FE_UPWARD : FE_TOWARDZERO);
    }
    ~Rounding() { fesetround(before); }
};

// Volatile, or the operation might move out of the reach of the rounding mode.
template <class T> static T compute(int op, int rounding, T first, T second, T third) {
    volatile T a = first, b = second, c = third, result;
    Rounding scope(rounding);
    switch (op) {
    case SIMULATED_PLUS: result = a + b; break;
    case SIMULATED_TIMES: result = a * b; break;
    case SIMULATED_OVER: result = a / b; break;
    case SIMULATED_ROOT: result = std::sqrt(a); break;
    default: result = std::fma(a, b, c);
    }
    return result;
}

#define EXPORTED extern "C" __attribute__((visibility("default")))
EXPORTED float simulated_f32(int op, int rounding, float a, float b, float c) { return compute<float>(op, rounding, a, b, c); }
EXPORTED double simulated_f64(int op, int rounding, double a, double b, double c) { return compute<double>(op, rounding, a, b, c); }
EXPORTED float simulated_narrow(double value, int rounding) {
    volatile double from = value;
    Rounding scope(rounding);
    volatile float to = (float)from;
    return to;
}
EXPORTED float simulated_from_integer(long long value, int rounding) {
    volatile long long from = value;
    Rounding scope(rounding);
    volatile float to = (float)from;
    return to;
}
