// What a kernel file sees in place of the CUDA headers, so that the host C++ compiler takes it unchanged.
// Forced in front of every kernel file by the build; the other names in this folder only include it.
#pragma once

#include <cassert>
#include <cfloat>
#include <climits>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <type_traits>
#include <utility>

#include "simulated/keywords.h"
#include "simulated/vectors.h"
#include "simulated/threads.h"
#include "simulated/atomics.h"
#include "simulated/arithmetic.h"
#include "simulated/halves.h"
#include "simulated/tensor.h"
#include "simulated/hopper.h"
