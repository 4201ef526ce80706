// What a bundle says of its model: everything that running it needs, and nothing of the family it comes from.
// runtimes/python/mythos_runtime/spec.py and ports.py have the same, and say more.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#ifndef MYTHOS_API
#define MYTHOS_API __attribute__((visibility("default")))
#endif

namespace mythos {

// A size, or a symbol bound at run time: B batch, T new tokens, P capacity of the past, N loop depths; ports.py has more.
struct MYTHOS_API Dim {
  std::int64_t size = 0;
  std::string symbol;  // empty: `size` counts
  bool operator==(const Dim& other) const { return size == other.size && symbol == other.symbol; }
  std::string words() const { return symbol.empty() ? std::to_string(size) : symbol; }
};

struct MYTHOS_API Port {
  std::string name, dtype;
  std::vector<Dim> dims;
  std::string role, group;  // group: the cache group of the roles past and new, else ""
  bool operator==(const Port& other) const;
  std::string words() const;  // "input_ids int64 [B, T]"
};

struct MYTHOS_API Ports {
  std::vector<Port> inputs, outputs;  // in the graph's order
  const Port& of(const std::string& role, const std::string& group = "") const;  // std::out_of_range where it has none
};

// Cache lines of one kind: `slots` per token around the loop, or per token and loop depth.
struct MYTHOS_API CacheGroup {
  std::string name;
  std::int64_t slots = 0;
  bool per_loop = false;
  std::int64_t width = 0;
  std::string dtype;
  std::int64_t before = 0;  // slots that are filled before the loop
  // The widths of a line's parts that are rounded to int8, each with a scale of its own; none: lines are not rounded. An
  // engine's pages hold rounded lines as int8: the integers, and behind them two bytes of each scale, a bfloat16, the low
  // one first.
  std::vector<std::int64_t> rounded = {};

  std::string page_dtype() const { return rounded.empty() ? dtype : "int8"; }
  std::int64_t page_width() const { return width + 2 * static_cast<std::int64_t>(rounded.size()); }
};

struct MYTHOS_API Knob {
  std::string name;
  double default_value = 0;
  std::optional<double> least, most;
  std::string meaning;
};

// spent: of an answer that is a weighted sum of states, the name of the state that holds the weights given so far.
struct MYTHOS_API ExitRule {
  std::string name, meaning;
  std::vector<Knob> knobs;
  std::optional<std::string> spent;
  const Knob* knob(const std::string& name) const;  // null where it has none of that name
};

// What one loop hands to the next; start is zeros, ones, encoded, noise (an input, drawn) or initial (that noise). scale and
// cut: of noise, its standard deviation and at how many of them it is cut.
struct MYTHOS_API StateTensor {
  std::string name, dtype;
  std::vector<Dim> dims;
  std::string start;
  std::optional<double> scale, cut;
};

// What verification looks at after every loop.
struct MYTHOS_API TraceTensor {
  std::string name, dtype;
  std::vector<Dim> dims;
  std::string kind;
  bool until_halted = false, unit = false;
  std::string of;
};

struct MYTHOS_API LoopSpec {
  std::string family;  // for people
  std::int64_t vocab_size = 0, max_seq_len = 0, max_output_tokens = 0;
  std::int64_t trained_loops = 0;  // the default of max_loops
  std::vector<CacheGroup> caches;
  std::vector<StateTensor> state;
  ExitRule exit;
  std::vector<TraceTensor> trace;
  std::map<std::string, Ports> graphs;  // "model" is there always

  const Ports& ports() const { return graphs.at("model"); }
  const StateTensor* initial() const;  // the state that is drawn; null where none is
  bool fits(const LoopSpec& other) const;  // whether one's caches are the other's
};

}  // namespace mythos
