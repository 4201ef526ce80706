// What a Cache holds (cache.py): sequences on the row graphs, or, for a graph that is the whole model, buffers that it reads
// where they are (dense.py).
#pragma once

#include <atomic>
#include <cstdlib>
#include <memory>
#include <vector>

#include "engine/row_cache.hpp"
#include "mythos_runtime.hpp"
#include "ports.hpp"

namespace mythos {

struct Cache::Buffers {
  struct Free {
    void operator()(char* memory) const { std::free(memory); }
  };
  struct Group {  // [lines, batch, capacity, width]; lines: slots, or loop depths times slots
    std::unique_ptr<char, Free> memory;
    std::size_t lines = 0;
    std::size_t entry = 0;  // bytes of a line's entry for one token
  };

  std::shared_ptr<const LoopSpec> spec;
  std::int64_t batch = 0, capacity = 0, max_loops = 0;
  std::unique_ptr<engine::RowCache> rows;  // null: `past` is the cache
  std::vector<Group> past;                 // in the order of spec->caches
  std::vector<std::int64_t> lengths;
  std::atomic<bool> in_use{false};  // by a call (guards.hpp)

  // Of so many rows, tokens and loops (default: as trained), all empty. RequestError: no cache has such. CapacityError: the
  // model takes less.
  static std::unique_ptr<Buffers> of(std::int64_t batch, std::int64_t capacity, std::shared_ptr<const LoopSpec> spec,
                                     std::optional<std::int64_t> max_loops);
  // CapacityError where a row cannot take `counts[row]` more tokens. Nothing is written.
  void check_room(const std::vector<std::int64_t>& counts) const;
  // The rows, of which there is this one (RequestError).
  engine::RowCache& rows_of(std::int64_t row) const;
  // Writes the valid tokens of each group's new entries, [lines, batch, tokens, width], behind each row's tokens.
  void append(const std::vector<const void*>& entries, const Tokens& tokens);
};

// What to say where a cache does not fit this machine; `paged`: its lines are as an engine's pages hold them.
CapacityError no_memory(const LoopSpec& spec, std::int64_t batch, std::int64_t capacity, std::int64_t depths,
                        bool paged = false);

}  // namespace mythos
