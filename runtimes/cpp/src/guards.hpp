// What no call may pass over in silence: results that are no numbers, and a cache that two threads use at once (guards.py).
#pragma once

#include "cache.hpp"

namespace mythos {

// Has a cache for itself while it lives. RequestError where another call is at work with it: two orders of the same tokens
// would both look right.
class Using {
 public:
  explicit Using(Cache::Buffers* buffers);  // null: nothing
  ~Using();
  Using(const Using&) = delete;
  Using& operator=(const Using&) = delete;

 private:
  Cache::Buffers* buffers_;
};

// ResultError where the logits [batch, tokens, vocab] of a real token hold NaN.
void check_numbers(const float* logits, const Tokens& tokens, std::int64_t vocab, const std::string& engine);

}  // namespace mythos
