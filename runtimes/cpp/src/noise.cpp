#include "noise.hpp"

#include <algorithm>
#include <cmath>

namespace mythos {
namespace {

// Wichura's algorithm AS 241 (1988): numerator and denominator of the quantile near the middle, and in the tails.
using Polynomial = std::array<double, 8>;
constexpr Polynomial kMiddle[2] = {
    {3.3871328727963666080, 133.14166789178437745, 1971.5909503065514427, 13731.693765509461125, 45921.953931549871457,
     67265.770927008700853, 33430.575583588128105, 2509.0809287301226727},
    {1.0, 42.313330701600911252, 687.18700749205790830, 5394.1960214247511077, 21213.794301586595867,
     39307.895800092710610, 28729.085735721942674, 5226.4952788528545610}};
constexpr Polynomial kTail[2] = {
    {1.42343711074968357734, 4.63033784615654529590, 5.76949722146069140550, 3.64784832476320460504,
     1.27045825245236838258, 0.241780725177450611770, 0.0227238449892691845833, 7.74545014278341407640e-4},
    {1.0, 2.05319162663775882187, 1.67638483018380384940, 0.689767334985100004550, 0.148103976427480074590,
     0.0151986665636164571966, 5.47593808499534494600e-4, 1.05075007164441684324e-9}};

double ratio(const Polynomial (&polynomials)[2], double x) {
  double value[2];
  for (int side = 0; side < 2; ++side) {
    value[side] = polynomials[side].back();
    for (std::size_t i = 7; i-- > 0;) value[side] = polynomials[side][i] + value[side] * x;
  }
  return value[0] / value[1];
}

}  // namespace

Words philox(Words counter, std::uint64_t key) {
  auto low = static_cast<std::uint32_t>(key), high = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t first = std::uint64_t{0xD2511F53} * counter[0], second = std::uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<std::uint32_t>(second >> 32) ^ counter[1] ^ low, static_cast<std::uint32_t>(second),
               static_cast<std::uint32_t>(first >> 32) ^ counter[3] ^ high, static_cast<std::uint32_t>(first)};
    low += 0x9E3779B9, high += 0xBB67AE85;
  }
  return counter;
}

double normal_quantile(double p) {
  const double q = p - 0.5;
  if (std::abs(q) <= 0.425) return q * ratio(kMiddle, 0.180625 - q * q);
  return std::copysign(ratio(kTail, std::sqrt(-std::log(std::min(p, 1 - p))) - 1.6), q);
}

std::vector<float> initial_state(const StateTensor& tensor, const std::vector<std::int64_t>& positions, std::uint64_t seed) {
  const auto width = static_cast<std::size_t>(tensor.dims.back().size);
  std::vector<float> state(positions.size() * width, 0.0f);
  const double scale = tensor.scale.value_or(0);
  const double tail = tensor.cut ? 0.5 * std::erfc(*tensor.cut / std::sqrt(2.0)) : 0.0;
  for (std::size_t token = 0; scale != 0 && token < positions.size(); ++token) {
    if (positions[token] < 0) continue;
    const auto position = static_cast<std::uint64_t>(positions[token]);
    Words words{};
    for (std::size_t channel = 0; channel < width; ++channel) {
      if (channel % 4 == 0)  // four channels from each block
        words = philox({static_cast<std::uint32_t>(channel / 4), static_cast<std::uint32_t>(position),
                        static_cast<std::uint32_t>(position >> 32), 0}, seed);
      const double uniform = ((words[channel % 4] >> 8) + 0.5) / (1 << 24);  // 24 bits, in (0, 1)
      state[token * width + channel] = static_cast<float>(scale * normal_quantile(tail + uniform * (1 - 2 * tail)));
    }
  }
  return state;
}

}  // namespace mythos
