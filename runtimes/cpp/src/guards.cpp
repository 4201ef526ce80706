#include "guards.hpp"

#include <algorithm>
#include <cmath>

namespace mythos {

Using::Using(Cache::Buffers* buffers) : buffers_(buffers) {
  if (buffers_ && buffers_->in_use.exchange(true, std::memory_order_acquire))
    throw RequestError("the cache is in use by another call: a cache is for one thread at a time; give every thread its own "
                       "(new_cache, or fork)");
}

Using::~Using() {
  if (buffers_) buffers_->in_use.store(false, std::memory_order_release);
}

void check_numbers(const float* logits, const Tokens& tokens, std::int64_t vocab, const std::string& engine) {
  for (std::size_t i = 0; i < tokens.valid.size(); ++i) {
    const float* row = logits + static_cast<std::int64_t>(i) * vocab;
    if (!tokens.valid[i] || std::none_of(row, row + vocab, [](float logit) { return std::isnan(logit); })) continue;
    const auto width = static_cast<std::size_t>(tokens.tokens);
    throw ResultError("the engine's logits hold NaN at row " + std::to_string(i / width) + ", token " +
                      std::to_string(i % width) + ": its results are broken (" + engine + ")");
  }
}

}  // namespace mythos
