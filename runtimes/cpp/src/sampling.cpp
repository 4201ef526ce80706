#include "sampling.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "batch.hpp"
#include "text.hpp"

namespace mythos {
namespace {

constexpr std::uint64_t kGolden = 0x9E3779B97F4A7C15;
constexpr double kLeastPenalty = 1e-6, kMostPenalty = 1e6;

// The largest, or NaN where one is NaN. Every lane has its own, which a compiler turns into instructions over vectors.
float largest_of(const float* values, std::size_t count) {
  constexpr std::size_t kLanes = 16;
  float most[kLanes];
  std::uint32_t unordered[kLanes] = {};
  std::fill_n(most, kLanes, -std::numeric_limits<float>::infinity());
  std::size_t at = 0;
  for (; at + kLanes <= count; at += kLanes)
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      const float value = values[at + lane];
      most[lane] = value > most[lane] ? value : most[lane];
      unordered[lane] |= value != value;
    }
  for (; at < count; ++at) {
    most[0] = std::max(most[0], values[at]);
    unordered[0] |= std::isnan(values[at]);
  }
  const bool nan = std::any_of(unordered, unordered + kLanes, [](std::uint32_t any) { return any != 0; });
  return nan ? std::numeric_limits<float>::quiet_NaN() : *std::max_element(most, most + kLanes);
}

std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

}  // namespace

void check_sampling(const SamplingOptions& options) {
  if (number(options.temperature, "temperature") < 0)
    throw RequestError("temperature should not be negative, found " + py_repr(options.temperature));
  if (const double p = number(options.top_p, "top_p"); !(p > 0 && p <= 1))
    throw RequestError("top_p should be above 0 and at most 1, found " + py_repr(p));
  if (const double p = number(options.min_p, "min_p"); !(p >= 0 && p <= 1))
    throw RequestError("min_p should be from 0 to 1, found " + py_repr(p));
  if (const double r = number(options.repetition_penalty, "repetition_penalty"); r < kLeastPenalty || r > kMostPenalty)
    throw RequestError("repetition_penalty should be from 1e-06 to 1e+06, found " + py_repr(r));
  integer(options.top_k, "top_k", 0);
}

SplitMix64::SplitMix64(std::uint64_t seed, std::uint64_t row) : state(mix(seed + (row + 1) * kGolden)) {}

std::uint64_t SplitMix64::next() {
  state += kGolden;
  return mix(state);
}

double SplitMix64::uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }

Sampler::Sampler(const SamplingOptions& options, std::uint64_t row, std::int64_t vocab_size,
                 const std::vector<std::int64_t>& prompt)
    : options_(options), random_(options.seed, row), seen_(static_cast<std::size_t>(vocab_size)) {
  for (const std::int64_t id : prompt) seen_[static_cast<std::size_t>(id)] = true;
}

std::int64_t Sampler::choose(const float* logits) {
  const float largest = largest_of(logits, seen_.size());
  if (!std::isfinite(largest))
    throw ResultError("the model's largest logit is " + py_repr(static_cast<double>(largest)) +
                      ": no token can be chosen; its results are broken");
  const double penalty = options_.repetition_penalty;
  std::size_t token = 0;
  if (options_.temperature == 0 && penalty == 1) {
    while (logits[token] != largest) ++token;
  } else {
    scores_.assign(logits, logits + seen_.size());
    for (std::size_t i = 0; penalty != 1 && i < scores_.size(); ++i)
      if (seen_[i]) scores_[i] = scores_[i] > 0 ? scores_[i] / penalty : scores_[i] * penalty;
    token = options_.temperature == 0
                ? static_cast<std::size_t>(std::max_element(scores_.begin(), scores_.end()) - scores_.begin())
                : draw();
  }
  seen_[token] = true;
  return static_cast<std::int64_t>(token);
}

// Steps 4 to 9.
std::size_t Sampler::draw() {
  const double largest = *std::max_element(scores_.begin(), scores_.end());
  for (double& score : scores_) score = (score - largest) / options_.temperature;
  const auto before = [&](std::size_t a, std::size_t b) {
    return scores_[a] > scores_[b] || (scores_[a] == scores_[b] && a < b);
  };
  order_.resize(scores_.size());
  std::iota(order_.begin(), order_.end(), std::size_t{0});
  std::size_t count = order_.size();
  if (options_.top_k > 0 && static_cast<std::size_t>(options_.top_k) < count)
    count = static_cast<std::size_t>(options_.top_k);
  std::partial_sort(order_.begin(), order_.begin() + static_cast<std::ptrdiff_t>(count), order_.end(), before);
  std::vector<double> weights(count), sums(count);
  double sum = 0;
  for (std::size_t i = 0; i < count; ++i) sums[i] = sum += weights[i] = std::exp(scores_[order_[i]]);
  std::size_t keep = count;
  if (options_.top_p < 1)
    keep = static_cast<std::size_t>(std::lower_bound(sums.begin(), sums.end(), options_.top_p * sums.back()) - sums.begin()) + 1;
  if (options_.min_p > 0)
    keep = std::min(keep, static_cast<std::size_t>(std::count_if(weights.begin(), weights.end(),
                                                                 [&](double w) { return w >= options_.min_p; })));
  const double target = random_.uniform() * sums[keep - 1];
  const auto end = sums.begin() + static_cast<std::ptrdiff_t>(keep);
  const auto at = static_cast<std::size_t>(std::upper_bound(sums.begin(), end, target) - sums.begin());
  return order_[std::min(at, keep - 1)];
}

}  // namespace mythos
