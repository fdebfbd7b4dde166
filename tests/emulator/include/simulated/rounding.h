// Operations with a rounding direction, computed in the driver.
#pragma once

extern "C" {
enum SimulatedOp { SIMULATED_PLUS, SIMULATED_TIMES, SIMULATED_OVER, SIMULATED_ROOT, SIMULATED_FMA };
enum SimulatedRounding { SIMULATED_DOWN, SIMULATED_UP, SIMULATED_ZERO };
float simulated_f32(int op, int rounding, float a, float b, float c);
double simulated_f64(int op, int rounding, double a, double b, double c);
float simulated_narrow(double value, int rounding);
float simulated_from_integer(long long value, int rounding);
}
