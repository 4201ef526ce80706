// What a Cache holds (cache.py): buffers that the graph reads where they lie.
#pragma once

#include <cstdlib>
#include <memory>
#include <vector>

#include "errors.hpp"
#include "ports.hpp"

namespace mythos {

struct Cache::Buffers {
  struct Free {
    void operator()(char* memory) const { std::free(memory); }
  };
  using Memory = std::unique_ptr<char, Free>;

  RuntimeConfig config;
  std::int64_t batch = 0, capacity = 0, max_loops = 0, depths = 0;
  std::size_t element = 4;
  Memory layers, loop;  // [layers or depths, batch, capacity, C]
  std::vector<std::int64_t> lengths;
  bool exact = true;

  std::size_t slot() const { return static_cast<std::size_t>(config.cache_width) * element; }  // bytes of one token
  // CapacityError where a row cannot take `counts[row]` more tokens. Nothing is written.
  void check_room(const std::vector<std::int64_t>& counts) const;
  // Writes the valid tokens of new_layers and new_loop behind each row's tokens.
  void append(const void* new_layers, const void* new_loop, const Tokens& tokens);
};

}  // namespace mythos
