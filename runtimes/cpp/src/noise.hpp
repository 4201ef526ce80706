// A random initial state, drawn so that it depends on nothing but a seed and a position (noise.py says how).
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "mythos_runtime.hpp"

namespace mythos {

// float32 [tokens, width] for a state of [B, T, width]; zeros where a position is negative.
std::vector<float> initial_state(const StateTensor& tensor, const std::vector<std::int64_t>& positions, std::uint64_t seed);

using Words = std::array<std::uint32_t, 4>;
Words philox(Words counter, std::uint64_t key);  // Philox4x32-10
double normal_quantile(double p);                // for p from about 1e-10 to 1 - 1e-10

}  // namespace mythos
