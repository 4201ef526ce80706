#include "batch.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "ports.hpp"
#include "text.hpp"

namespace mythos {
namespace {

// The nearest float32. To the graphs -inf means that a cap ends a row here, and other loops follow; no exit rule tells an
// infinite threshold from the largest finite one.
float finite(double value) {
  constexpr double most = std::numeric_limits<float>::max();
  return static_cast<float>(std::clamp(value, -most, most));
}

}  // namespace

Tokens Tokens::rows(const Rows& rows, Padding side) {
  Tokens tokens;
  tokens.batch = static_cast<std::int64_t>(rows.size());
  for (const auto& row : rows) tokens.tokens = std::max(tokens.tokens, static_cast<std::int64_t>(row.size()));
  for (const auto& row : rows) {
    const std::size_t gap = static_cast<std::size_t>(tokens.tokens) - row.size();
    const std::size_t before = side == Padding::left ? gap : 0, after = gap - before;
    tokens.ids.insert(tokens.ids.end(), before, 0);
    tokens.ids.insert(tokens.ids.end(), row.begin(), row.end());
    tokens.ids.insert(tokens.ids.end(), after, 0);
    tokens.valid.insert(tokens.valid.end(), before, 0);
    tokens.valid.insert(tokens.valid.end(), row.size(), 1);
    tokens.valid.insert(tokens.valid.end(), after, 0);
  }
  return tokens;
}

Tokens checked(Tokens tokens, std::int64_t vocab_size) {
  const std::vector<std::int64_t> shape{tokens.batch, tokens.tokens};
  if (tokens.batch < 1 || tokens.tokens < 1)
    throw RequestError("ids should be a non-empty array [batch, tokens], found shape " + list_in_words(shape));
  const auto size = static_cast<std::size_t>(tokens.batch) * static_cast<std::size_t>(tokens.tokens);
  if (tokens.ids.size() != size || tokens.valid.size() != size)
    throw RequestError("ids and valid should have " + std::to_string(size) + " elements " + list_in_words(shape) +
                       ", found " + std::to_string(tokens.ids.size()) + " and " + std::to_string(tokens.valid.size()));
  if (std::none_of(tokens.valid.begin(), tokens.valid.end(), [](auto v) { return v != 0; }))
    throw RequestError("every token is padding, so there is nothing to compute");
  for (std::size_t i = 0; i < size; ++i) {
    if (!tokens.valid[i])
      tokens.ids[i] = 0;  // whatever stands in the padding must not index the embedding
    else if (tokens.ids[i] < 0 || tokens.ids[i] >= vocab_size)
      throw RequestError("ids[" + std::to_string(i / static_cast<std::size_t>(tokens.tokens)) + ", " +
                         std::to_string(i % static_cast<std::size_t>(tokens.tokens)) + "] is " +
                         std::to_string(tokens.ids[i]) + ", but this model's vocabulary has the ids 0 to " +
                         std::to_string(vocab_size - 1) + "; is this the right tokenizer?");
  }
  return tokens;
}

std::vector<std::int64_t> counts_of(const Tokens& tokens) {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(tokens.batch), 0);
  for (std::size_t i = 0; i < tokens.valid.size(); ++i)
    counts[i / static_cast<std::size_t>(tokens.tokens)] += tokens.valid[i] != 0;
  return counts;
}

std::vector<std::int64_t> positions_of(const Tokens& tokens, const std::vector<std::int64_t>& past_lengths) {
  std::vector<std::int64_t> positions(tokens.ids.size(), -1);
  const auto width = static_cast<std::size_t>(tokens.tokens);
  for (std::size_t row = 0; row < past_lengths.size(); ++row) {
    std::int64_t next = past_lengths[row];
    for (std::size_t i = row * width; i < (row + 1) * width; ++i)
      if (tokens.valid[i]) positions[i] = next++;
  }
  return positions;
}

void check_prompts(const Rows& prompts, std::int64_t vocab_size) {
  if (prompts.empty()) throw RequestError("there is no prompt; ids should hold at least one token");
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    if (prompts[i].empty())
      throw RequestError("prompt " + std::to_string(i) + " should be a non-empty list of ids, found shape [0]");
    checked(Tokens::rows({prompts[i]}), vocab_size);
  }
}

void check_stops(const Rows& stops) {
  for (const auto& sequence : stops)
    if (sequence.empty()) throw RequestError("a stop sequence is empty; it should hold at least one id");
}

std::int64_t integer(std::int64_t value, const std::string& name, std::int64_t least, std::optional<std::int64_t> most) {
  if (value < least || (most && value > *most))
    throw RequestError(name + " should be an integer of at least " + std::to_string(least) +
                       (most ? " and at most " + std::to_string(*most) : "") + ", found " + std::to_string(value));
  return value;
}

double number(double value, const std::string& name) {
  if (!std::isfinite(value)) throw RequestError(name + " should be a finite number, found " + py_repr(value));
  return value;
}

float threshold_of(const std::optional<double>& given, const LoopSpec& spec, double without) {
  const Knob* knob = spec.exit.knob("halt_threshold");
  if (!given) return knob ? finite(knob->default_value) : static_cast<float>(without);
  const double value = *given;
  if (!knob) throw RequestError("this model (" + spec.family + ") has no halt_threshold: " + spec.exit.meaning);
  if (!std::isinf(value)) number(value, "halt_threshold");
  const double low = knob->least.value_or(-HUGE_VAL), high = knob->most.value_or(HUGE_VAL);
  const bool fits = std::isinf(value) || std::abs(value) <= static_cast<double>(std::numeric_limits<float>::max());
  if (!(low <= value && value <= high) || !fits)
    throw RequestError("halt_threshold should be a float32 from " + py_repr(low) + " to " + py_repr(high) + ", found " +
                       py_repr(value));
  return finite(value);
}

}  // namespace mythos
