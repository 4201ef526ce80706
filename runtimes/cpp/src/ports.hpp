// The ports of the model graph; see runtimes/python/mythos_runtime/ports.py, the one place that says why.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "errors.hpp"

namespace mythos {

struct Dim {
  std::int64_t size = 0;
  std::string symbol;  // empty: `size` counts
  bool operator==(const Dim& other) const { return symbol == other.symbol && (!symbol.empty() || size == other.size); }
};

struct Port {
  std::string name, dtype;
  std::vector<Dim> dims;
  std::string words() const;  // "input_ids int64 [B, T]"
};

struct Ports {
  std::vector<Port> inputs, outputs;
};

// An array: what goes to a session is borrowed, what comes from it is held by `owner`.
struct Tensor {
  std::string name, dtype;
  std::vector<std::int64_t> shape;
  const void* data = nullptr;
  std::shared_ptr<void> owner;
};

Ports model_ports(const RuntimeConfig& config);
// What differs between two sets of ports, in words; empty where they agree.
std::string first_difference(const Ports& expected, const Ports& found);
std::size_t dtype_size(const std::string& dtype);
std::string list_in_words(const std::vector<std::int64_t>& values);  // "[1, 2]"
// Holds a session's outputs against the contract (ResultError).
void check_outputs(const std::vector<Port>& ports, const std::vector<Tensor>& arrays,
                   std::map<std::string, std::int64_t> symbols);

}  // namespace mythos
