// How the next token is chosen: the specification is in runtimes/python/mythos_runtime/sampling.py, step by step.
#pragma once

#include <cstdint>
#include <vector>

#include "mythos_runtime.hpp"

namespace mythos {

void check_sampling(const SamplingOptions& options);  // RequestError where one is out of range

// The random numbers of one row.
class SplitMix64 {
 public:
  SplitMix64(std::uint64_t seed, std::uint64_t row);
  std::uint64_t next();
  double uniform();  // in [0, 1), 53 random bits
  std::uint64_t state;
};

// Chooses the tokens of one row: holds its random numbers and the ids it has seen.
class Sampler {
 public:
  Sampler(const SamplingOptions& options, std::uint64_t row, std::int64_t vocab_size,
          const std::vector<std::int64_t>& prompt);
  // The next id for float32 logits [V]; it counts as seen from now on (ResultError on NaN or infinity).
  std::int64_t choose(const float* logits);

 private:
  std::size_t draw();
  SamplingOptions options_;
  SplitMix64 random_;
  std::vector<bool> seen_;
  std::vector<double> scores_;
  std::vector<std::size_t> order_;
};

}  // namespace mythos
