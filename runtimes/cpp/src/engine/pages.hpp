// The paged cache: memory in pages of 32 positions, tables that name pages, and who holds which (pages.py).
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/line_pool.hpp"

namespace mythos::engine {

// No page is free. The engine makes room, or a request waits; it does not reach a user.
struct OutOfPages : std::exception {
  const char* what() const noexcept override { return "no page of the engine's caches is free"; }
};

// No state is free for a position that enters: others have to run what they lag, which frees theirs.
struct OutOfStates : OutOfPages {
  const char* what() const noexcept override { return "no state of the engine's is free"; }
};

// Pages in the order of positions. A page may stand in several tables (a common prefix, a fork); whoever writes to it
// then gets a copy.
using Table = std::vector<std::int64_t>;

// Pages of one cache group: all slots of a page belong to the same positions.
class PagedCache {
 public:
  // `make`: of the memory that pages lie in.
  PagedCache(std::int64_t slots, std::int64_t pages, std::int64_t width, const std::string& dtype,
             const MakeLines& make = host_lines);

  std::int64_t slots() const { return slots_; }
  std::int64_t width() const { return width_; }
  const std::string& dtype() const { return dtype_; }
  std::int64_t pages() const { return static_cast<std::int64_t>(holders_.size()); }
  std::int64_t free() const { return static_cast<std::int64_t>(free_.size()); }
  std::int64_t held() const { return pages() - free(); }   // that somebody holds
  std::int64_t page_bytes() const { return page_bytes_; }  // of one slot
  std::int64_t nbytes() const { return slots_ * pages() * page_bytes_; }
  bool on_host() const { return memory_->on_host(); }      // whether an address in it means something here
  // [pages, kPage, width] of a slot, what a layer's graph input is bound to; and one page of it.
  char* slot(std::int64_t slot) const { return memory_->data() + slot * pages() * page_bytes_; }
  char* page(std::int64_t slot, std::int64_t page) const { return this->slot(slot) + page * page_bytes_; }

  // Have at least so many pages (CapacityError). Memory moves: whoever has bound it has to bind it again.
  void grow(std::int64_t pages);
  // Gives a page the entries of another one, `count` of them from the `first` on.
  void copy(std::int64_t to, std::int64_t from, std::int64_t first, std::int64_t count);
  // Makes positions first..last of a table writable, where all before `first` have pages (OutOfPages: nothing changed).
  void extend(Table& table, std::int64_t first, std::int64_t last);
  // As `extend`, but without copying a page that another table holds too; whether that and the free pages allow it. Nothing
  // was changed where they do not.
  bool extend_own(Table& table, std::int64_t first, std::int64_t last);
  void hold(std::int64_t page) { ++holders_[static_cast<std::size_t>(page)]; }
  // One holder less; the last one frees the page.
  void give(std::int64_t page);
  // A second table of the entries of the first `length` positions.
  Table fork(const Table& table, std::int64_t length);
  // Gives the pages behind the first `length` positions back.
  void truncate(Table& table, std::int64_t length);

  std::function<void(std::int64_t)> freed;  // called with a page that nobody holds any more (tests fill it with NaN)
  std::int64_t peak = 0;                    // the most pages that were held at a time

 private:
  std::int64_t take();

  std::int64_t slots_, width_, page_bytes_;
  std::string dtype_;
  MakeLines make_;
  std::unique_ptr<LinePool> memory_;  // a line is the entry of a position in one slot
  std::vector<std::int64_t> free_;
  std::vector<std::int64_t> holders_;
};

}  // namespace mythos::engine
