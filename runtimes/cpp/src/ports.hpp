// Arrays held against ports (ports.py).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "mythos_runtime.hpp"

namespace mythos {

// An array: what goes to a session is borrowed, what comes from it is held by `owner`.
struct Tensor {
  std::string name, dtype;
  std::vector<std::int64_t> shape;
  const void* data = nullptr;
  std::shared_ptr<void> owner;
};

using Symbols = std::map<std::string, std::int64_t>;  // what B, T, P and N stand for

std::size_t dtype_size(const std::string& dtype);
std::string list_in_words(const std::vector<std::int64_t>& values);  // "[1, 2]"
std::vector<std::int64_t> shape_of(const Port& port, const Symbols& symbols);
// Holds a session's outputs, in the ports' order, against the contract (ResultError).
void check_outputs(const std::vector<Port>& ports, const std::vector<Tensor>& arrays, const Symbols& symbols);

}  // namespace mythos
