#include "engine/pages.hpp"

#include <algorithm>

#include "ports.hpp"
#include "row_ports.hpp"

namespace mythos::engine {
namespace {

// Pages of a table that the first `length` positions are on.
std::size_t pages_of(const Table& table, std::int64_t length) {
  return std::min(static_cast<std::size_t>((length + kPage - 1) / kPage), table.size());
}

// Lines of so many pages (CapacityError: no memory has as many).
std::int64_t lines(std::int64_t slots, std::int64_t pages) {
  std::int64_t count = 0;
  if (__builtin_mul_overflow(slots, pages, &count) || __builtin_mul_overflow(count, kPage, &count))
    no_memory_for(static_cast<double>(slots) * static_cast<double>(pages) * kPage, "caches");
  return count;
}

}  // namespace

PagedCache::PagedCache(std::int64_t slots, std::int64_t pages, std::int64_t width, const std::string& dtype,
                       const MakeLines& make)
    : slots_(slots), width_(width), page_bytes_(kPage * width * static_cast<std::int64_t>(dtype_size(dtype))), dtype_(dtype),
      make_(make), memory_(make(lines(slots, pages), page_bytes_ / kPage, "caches")),
      holders_(static_cast<std::size_t>(pages), 0) {
  for (std::int64_t page = pages; page-- > 0;) free_.push_back(page);
}

void PagedCache::grow(std::int64_t pages) {
  const std::int64_t used = this->pages();
  if (pages <= used) return;
  std::unique_ptr<LinePool> memory = make_(lines(slots_, pages), page_bytes_ / kPage, "caches");
  Lines to, from;
  for (std::int64_t slot = 0; slot < slots_; ++slot)
    for (std::int64_t page = 0; page < used; ++page)
      if (holders_[static_cast<std::size_t>(page)]) {  // the others may never have been touched
        to.push_back((slot * pages + page) * kPage);
        from.push_back((slot * used + page) * kPage);
      }
  memory->copy(to, *memory_, from, kPage);
  memory_ = std::move(memory);
  std::vector<std::int64_t> more;
  for (std::int64_t page = pages; page-- > used;) more.push_back(page);
  free_.insert(free_.begin(), more.begin(), more.end());
  holders_.resize(static_cast<std::size_t>(pages), 0);
}

void PagedCache::copy(std::int64_t to, std::int64_t from, std::int64_t first, std::int64_t count) {
  Lines there, here;
  for (std::int64_t slot = 0; slot < slots_; ++slot) {
    there.push_back((slot * pages() + to) * kPage + first);
    here.push_back((slot * pages() + from) * kPage + first);
  }
  memory_->copy(there, *memory_, here, count);
}

void PagedCache::extend(Table& table, std::int64_t first, std::int64_t last) {
  const auto length = static_cast<std::int64_t>(table.size());
  std::vector<std::size_t> shared;
  for (std::int64_t block = first / kPage; block < length; ++block)
    if (holders_[static_cast<std::size_t>(table[static_cast<std::size_t>(block)])] > 1)
      shared.push_back(static_cast<std::size_t>(block));
  const std::int64_t fresh = std::max<std::int64_t>(last / kPage + 1 - length, 0);
  if (static_cast<std::int64_t>(shared.size()) + fresh > free()) throw OutOfPages();
  for (const std::size_t block : shared) {
    const std::int64_t old = table[block], copy = take();
    this->copy(copy, old, 0, kPage);
    table[block] = copy;
    give(old);
  }
  for (std::int64_t i = 0; i < fresh; ++i) table.push_back(take());
}

bool PagedCache::extend_own(Table& table, std::int64_t first, std::int64_t last) {
  const auto block = static_cast<std::size_t>(first / kPage);
  if (block < table.size() && holders_[static_cast<std::size_t>(table[block])] > 1) return false;
  const std::int64_t fresh = last / kPage + 1 - static_cast<std::int64_t>(table.size());
  if (fresh > free()) return false;
  for (std::int64_t i = 0; i < fresh; ++i) table.push_back(take());
  return true;
}

void PagedCache::give(std::int64_t page) {
  if (--holders_[static_cast<std::size_t>(page)] > 0) return;
  free_.push_back(page);
  if (freed) freed(page);
}

Table PagedCache::fork(const Table& table, std::int64_t length) {
  const Table twin(table.begin(), table.begin() + static_cast<std::ptrdiff_t>(pages_of(table, length)));
  for (const std::int64_t page : twin) hold(page);
  return twin;
}

void PagedCache::truncate(Table& table, std::int64_t length) {
  const std::size_t keep = pages_of(table, length);
  for (std::size_t block = keep; block < table.size(); ++block) give(table[block]);
  table.resize(keep);
}

std::int64_t PagedCache::take() {
  const std::int64_t page = free_.back();
  free_.pop_back();
  holders_[static_cast<std::size_t>(page)] = 1;
  peak = std::max(peak, held());
  return page;
}

}  // namespace mythos::engine
