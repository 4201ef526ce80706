// From what a caller passes to what the graph takes (batch.py).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "mythos_runtime.hpp"

namespace mythos {

using Rows = std::vector<std::vector<std::int64_t>>;

// Checks a batch of tokens and zeroes what stands in the padding (RequestError).
Tokens checked(Tokens tokens, std::int64_t vocab_size);
std::vector<std::int64_t> counts_of(const Tokens& tokens);
// A row's real tokens count on from its past; padding is -1.
std::vector<std::int64_t> positions_of(const Tokens& tokens, const std::vector<std::int64_t>& past_lengths);
void check_prompts(const Rows& prompts, std::int64_t vocab_size);
void check_stops(const Rows& stops);  // RequestError where one is empty
std::int64_t integer(std::int64_t value, const std::string& name, std::int64_t least,
                     std::optional<std::int64_t> most = {});
double number(double value, const std::string& name);
// Where a token halts, as asked or as trained, and finite; `without`: for a model that has no such knob (RequestError where one is asked).
float threshold_of(const std::optional<double>& given, const LoopSpec& spec, double without);

}  // namespace mythos
