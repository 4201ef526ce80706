// Pages, what is kept of ended sequences, and how memory is dealt.
#include <algorithm>
#include <limits>

#include "../check.hpp"
#include "counting.hpp"
#include "engine/opening.hpp"
#include "engine/prefixes.hpp"
#include "row_ports.hpp"

namespace {

using namespace mythos::engine;

void pages_are_shared_until_somebody_writes() {
  PagedCache cache(1, 4, 2, "float32");
  Table table;
  cache.extend(table, 0, mythos::kPage);  // two pages
  *cache.page(0, table[1]) = 7;
  Table twin = cache.fork(table, mythos::kPage + 1);
  cache.extend(twin, mythos::kPage + 1, mythos::kPage + 1);
  check(twin[0] == table[0] && twin[1] != table[1] && *cache.page(0, twin[1]) == 7, "a shared page is copied by its writer");
  cache.truncate(table, 0);
  check(cache.free() == 2 && table.empty(), "a table gives its pages back");
  refuses<OutOfPages>([&] { cache.extend(twin, 2 * mythos::kPage, 5 * mythos::kPage); }, "no page");
  check(twin.size() == 2 && cache.free() == 2, "and nothing was changed");
  cache.truncate(twin, 1);
  check(cache.free() == 3 && cache.peak == 3, "pages behind a length are given back");
}

void memory_is_dealt_to_whole_pages() {
  const auto spec = counting_spec();
  constexpr std::int64_t size = 1 << 20, lagging = 100, cached = 4 * (2 + kLoops), state = 4 * 4 + 1 + 4 + 8 + 8;
  const Memory memory = Memory::of(*spec, size, kLoops, lagging), all = Memory::of(*spec, size, kLoops, size);
  check(memory.longest() == (size - lagging * state) / (mythos::kPage * cached) * mythos::kPage, "what no state takes is pages");
  check(all.longest() == size / (mythos::kPage * (cached + state)) * mythos::kPage, "and a state is a position's, at most");
  check(memory.states->lines() == lagging && all.states->lines() == all.longest(), "states");
  for (const Memory* each : {&memory, &all}) check(each->nbytes() <= size && each->nbytes() > size * 9 / 10, "all of it");
  const Memory little = Memory::of(*spec, 32 * (cached + state), kLoops, lagging);
  check(little.longest() == 32 && little.states->lines() == 32, "one page and its states");
  refuses<mythos::CapacityError>([&] { Memory::of(*spec, 100, 1, lagging); }, "100 bytes hold no page of 32 positions");
  refuses<mythos::RequestError>([&] { Memory::of(*spec, size, 300, lagging); }, "1 to 256 loops, found 300");
  refuses<mythos::CapacityError>([] { PagedCache(1 << 30, 1 << 30, 1 << 20, "float32"); }, "does not give");
}

void the_largest_options_are_as_many_as_the_memory_holds() {
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
  check(saturated_sum(most, 1) == most && saturated_product(most / 2, 3) == most, "what no integer holds");
  check(saturated_sum(3, 4) == 7 && saturated_product(3, 4) == 12, "and what one does");
  mythos::EngineOptions options;
  options.memory = 1 << 20, options.max_lag = options.chunk = options.most_rows = options.most_running = most;
  options.prefixes = most;
  struct Opened {};
  // Behind the memory, which is dealt first, a graph is opened.
  const OpenGraph open = [](const std::string&) -> std::shared_ptr<mythos::OrtSession> { throw Opened{}; };
  try {
    make_core(counting_spec(), {open, {}}, options);
    check(false, "no graph was opened");
  } catch (const Opened&) {
  }
}

// A kept entry that lags gives its states, whoever is older.
void kept_sequences_that_lag_most_go_first() {
  Sequence older(1, 0, Policy::lazy, 0), lagging(1, 0, Policy::lazy, 0), other(1, 0, Policy::lazy, 0);
  lagging.lines.resize(9), other.lines.resize(9);
  std::vector<Sequence*> closed;
  Prefixes prefixes(3, [&](Sequence& sequence) { closed.push_back(&sequence); });
  const auto ids = [](std::int64_t id) { return Ids(static_cast<std::size_t>(mythos::kPage), id); };
  prefixes.keep(older, ids(0), ""), prefixes.keep(lagging, ids(1), ""), prefixes.keep(other, ids(2), "");
  check(!prefixes.drop_lagging(9) && closed.empty(), "none has more");
  check(prefixes.drop_lagging(8, &lagging) && closed.back() == &other, "one is spared");
  check(prefixes.drop_lagging(0) && closed.back() == &lagging && !prefixes.drop_lagging(0), "the other one");
  check(prefixes.drop() && closed.back() == &older && !prefixes.drop(), "for pages the oldest");
}

void what_is_given_back_holds_zeros_and_nothing_else_changes() {
  constexpr std::int64_t bytes = 3 << 20;
  for (const std::size_t from : {std::size_t{0}, std::size_t{1}, std::size_t{4095}})
    for (const std::size_t count : {std::size_t{1000}, std::size_t{1} << 20, std::size_t{(1 << 20) + 5}}) {
      const auto memory = mythos::engine::zeros({bytes}, "test");
      char* const data = memory.get();
      std::fill_n(data, bytes, char{1});
      mythos::engine::give_back(data + from, count);
      check(std::all_of(data, data + from, [](char each) { return each == 1; }), "what stands before it");
      check(std::all_of(data + from + count, data + bytes, [](char each) { return each == 1; }), "and behind it");
      const auto left = std::count(data + from, data + from + count, char{1});
      const auto zeros = std::count(data + from, data + from + count, char{0});
      check(left + zeros == static_cast<std::ptrdiff_t>(count), "nothing else is made of it");
#if defined(__linux__)
      check(count == 1000 ? left == 1000 : left < 2 * (64 << 10), "all but its ends, where that is worth a call");
#endif
    }
}

}  // namespace

void memory_and_pages() {
  pages_are_shared_until_somebody_writes();
  memory_is_dealt_to_whole_pages();
  the_largest_options_are_as_many_as_the_memory_holds();
  kept_sequences_that_lag_most_go_first();
  what_is_given_back_holds_zeros_and_nothing_else_changes();
}
