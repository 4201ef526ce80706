// A batch of sequences on the row graphs: the cache of Model::forward, whose depths are filled as they are needed
// (row_cache.py).
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "engine/core.hpp"

namespace mythos::engine {

// A core and what of its memory is spoken for, so that nobody runs out of pages. Whoever touches the core holds `turn`.
struct Pool {
  explicit Pool(std::unique_ptr<Core> core) : core(std::move(core)) {}

  const std::unique_ptr<Core> core;
  Room claimed;  // by all caches, and by generations on their way
  std::recursive_mutex turn;
};

// Room in a pool, as long as it lives. CapacityError: the machine does not give the memory.
class Claim {
 public:
  Claim(std::shared_ptr<Pool> pool, const Room& room);
  ~Claim();
  Claim(const Claim&) = delete;
  Claim& operator=(const Claim&) = delete;

  const std::shared_ptr<Pool> pool;

 private:
  const Room room_;
};

class RowCache {
 public:
  // `batch` sequences of up to `capacity` positions at `loops` depths (RequestError: more than row graphs run).
  RowCache(std::shared_ptr<Pool> pool, std::int64_t batch, std::int64_t capacity, std::int64_t loops, Policy policy);
  ~RowCache();
  RowCache(const RowCache&) = delete;
  RowCache& operator=(const RowCache&) = delete;

  const std::shared_ptr<Pool>& pool() const { return claim_.pool; }
  // Of the pages that the rows hold; shared ones count for each.
  std::size_t nbytes() const;
  // Appends the valid tokens of a batch, for which there is room, and fills logits, depth and loops of the result.
  // initial: [batch, tokens, S], their states before the first loop, of models that draw them; empty: drawn with the seed.
  // Whatever is thrown, nothing was appended.
  void forward(const Tokens& tokens, float threshold, std::uint64_t state_seed, const std::vector<float>& initial, Output& out);
  // The named rows, on the same pages.
  std::unique_ptr<RowCache> fork(const std::vector<std::int64_t>& rows) const;
  void truncate(std::size_t row, std::int64_t length);
  // See Cache::read and Cache::write; `loop` below 0: around it.
  std::vector<char> read(std::size_t row, std::int64_t loop);
  void write(std::size_t row, std::int64_t length, const std::vector<char>& around, const std::vector<char>& loops);

 private:
  std::size_t line_bytes(bool around) const;
  void append(const Tokens& tokens, const std::vector<float>& initial, Output& out);

  Claim claim_;
  const std::int64_t capacity_, loops_;
  const Policy policy_;
  std::vector<Sequence*> sequences_;
};

}  // namespace mythos::engine
