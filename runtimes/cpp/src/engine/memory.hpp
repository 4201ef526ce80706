// How an engine's memory is dealt: to pages of the caches, and to the states of positions that lag (memory.py).
#pragma once

#include <memory>

#include "engine/states.hpp"

namespace mythos::engine {

// Pages around the loop and inside, and lines of state.
struct Room {
  std::int64_t around = 0, loop = 0, lines = 0;

  // What so many sequences of so many positions, each at every depth, may need.
  static Room of(std::int64_t sequences, std::int64_t positions, std::int64_t loops);
};

// What an engine over a model allocates. The system gives it as it is touched.
struct Memory {
  std::unique_ptr<PagedCache> around, loop;  // the caches; around is null where the model has no layers there
  std::unique_ptr<States> states;            // of every position that the caches hold, should all of them lag

  static Memory with_room(const LoopSpec& spec, const Room& room);
  // Room for as many positions, each at every depth, as `size` bytes hold. `loops`: the most that a request may ask for.
  // RequestError: the row graphs do not take so many. CapacityError: not even one page fits.
  static Memory of(const LoopSpec& spec, std::int64_t size, std::int64_t loops);
  // Bytes that one page of positions takes.
  static std::int64_t page_bytes(const LoopSpec& spec, std::int64_t loops);

  // Have at least so much (CapacityError). Memory moves: see PagedCache::grow.
  void grow(const Room& room);

  std::int64_t positions() const { return states->lines(); }  // that it holds at every depth
  std::int64_t nbytes() const;                                // all of it, touched or not
};

}  // namespace mythos::engine
