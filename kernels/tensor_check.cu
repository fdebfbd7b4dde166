// Sums of products as this device's tensor cores make them: tensor_check.cuh.
#include "tensor_check.cuh"
