#include "engine/row_cache.hpp"

#include <algorithm>
#include <cstring>

#include "cache.hpp"
#include "guards.hpp"
#include "row_ports.hpp"

namespace mythos::engine {
namespace {

// The room of a cache (CapacityError: no memory has so much).
Room room_of(const Core& core, std::int64_t batch, std::int64_t capacity, std::int64_t loops, Policy policy) {
  const double bytes = static_cast<double>(batch) * static_cast<double>(capacity) * static_cast<double>(Memory::page_bytes(core.spec(), loops));
  if (bytes > 1e17) throw no_memory(core.spec(), batch, capacity, loops, true);
  return Room::of(batch, capacity, loops, core.most_states(policy, core.graphs->most_rows));
}

// A row's tokens in a chunk that are real, by their places in it.
std::vector<std::size_t> places_of(const Tokens& tokens, std::size_t row) {
  std::vector<std::size_t> places;
  const auto width = static_cast<std::size_t>(tokens.tokens);
  for (std::size_t t = 0; t < width; ++t)
    if (tokens.valid[row * width + t]) places.push_back(row * width + t);
  return places;
}

}  // namespace

Claim::Claim(std::shared_ptr<Pool> given, const Room& room) : pool(std::move(given)), room_(room) {
  const std::lock_guard<std::recursive_mutex> alone(pool->turn);
  const Room all = pool->claimed + room;
  pool->core->reserve(all);
  pool->claimed = all;
}

Claim::~Claim() {
  const std::lock_guard<std::recursive_mutex> alone(pool->turn);
  pool->claimed = pool->claimed - room_;
}

RowCache::RowCache(std::shared_ptr<Pool> pool, std::int64_t batch, std::int64_t capacity, std::int64_t loops, Policy policy)
    : claim_(pool, room_of(*pool->core, batch, capacity, std::max<std::int64_t>(loops, 1), policy)), capacity_(capacity),
      loops_(loops), policy_(policy) {
  const std::lock_guard<std::recursive_mutex> alone(pool->turn);
  for (std::int64_t row = 0; row < batch; ++row) sequences_.push_back(&pool->core->open(loops, 0.0f, policy));
}

RowCache::~RowCache() {
  const std::lock_guard<std::recursive_mutex> alone(pool()->turn);
  for (Sequence* sequence : sequences_) pool()->core->close(*sequence);
}

std::size_t RowCache::nbytes() const {
  const Core& core = *pool()->core;
  std::int64_t total = 0;
  const auto bytes = [](const PagedCache& cache, const Table& table) {
    return static_cast<std::int64_t>(table.size()) * cache.slots() * cache.page_bytes();
  };
  for (const Sequence* sequence : sequences_) {
    if (core.around) total += bytes(*core.around, sequence->around);
    for (const Table& table : sequence->loop) total += bytes(*core.loop, table);
  }
  return static_cast<std::size_t>(total);
}

void RowCache::forward(const Tokens& tokens, float threshold, std::uint64_t state_seed, const std::vector<float>& initial,
                       Output& out) {
  const std::lock_guard<std::recursive_mutex> alone(pool()->turn);
  std::vector<std::int64_t> before;
  for (Sequence* sequence : sequences_) {
    before.push_back(sequence->length);
    sequence->threshold = threshold, sequence->state_seed = state_seed;
  }
  try {
    append(tokens, initial, out);
    check_numbers(out.logits.data(), tokens, pool()->core->spec().vocab_size, "row graphs");
  } catch (...) {
    for (std::size_t row = 0; row < before.size(); ++row) truncate(row, before[row]);
    throw;
  }
  // What lags behind a token runs with it, no deeper.
  out.loops = policy_ == Policy::full ? loops_ : *std::max_element(out.depth.begin(), out.depth.end());
}

void RowCache::append(const Tokens& tokens, const std::vector<float>& initial, Output& out) {
  Core& core = *pool()->core;
  const auto vocab = static_cast<std::size_t>(core.spec().vocab_size);
  const std::size_t width = initial.size() / std::max<std::size_t>(tokens.ids.size(), 1);  // of a state
  out.logits.assign(tokens.ids.size() * vocab, 0), out.depth.assign(tokens.ids.size(), 0);
  std::vector<std::vector<std::size_t>> places;
  for (std::size_t row = 0; row < sequences_.size(); ++row) places.push_back(places_of(tokens, row));
  std::vector<std::size_t> at(sequences_.size(), 0);
  for (;;) {
    std::vector<std::size_t> waiting;
    for (std::size_t row = 0; row < places.size(); ++row)
      if (at[row] < places[row].size() && waiting.size() < static_cast<std::size_t>(core.graphs->most_rows)) waiting.push_back(row);
    if (waiting.empty()) return;
    const std::size_t most = static_cast<std::size_t>(core.graphs->most_rows) / waiting.size();
    std::vector<Chunk> chunks;
    std::vector<Leaving> leaving;
    std::vector<Sequence*> sequences;
    std::vector<std::size_t> cut;  // where the chunks' answers belong
    for (const std::size_t row : waiting) {
      Chunk chunk{sequences_[row], {}};
      for (const std::size_t end = std::min(at[row] + most, places[row].size()); at[row] < end; ++at[row]) {
        const std::size_t place = places[row][at[row]];
        chunk.ids.push_back(tokens.ids[place]);
        const float* state = initial.data() + place * width;
        chunk.initial.insert(chunk.initial.end(), state, state + width);
        cut.push_back(place);
      }
      chunks.push_back(std::move(chunk));
      leaving.push_back({sequences_[row], /*every=*/true});
      sequences.push_back(sequences_[row]);
    }
    core.enter(chunks);
    core.run(sequences);
    auto place = cut.begin();
    for (const Answer& answer : core.leave(leaving))
      for (std::size_t row = 0; row < answer.depth.size(); ++row, ++place) {
        std::copy_n(answer.logits.data() + row * vocab, vocab, out.logits.begin() + static_cast<std::ptrdiff_t>(*place * vocab));
        out.depth[*place] = answer.depth[row];
      }
    for (Sequence* sequence : sequences) core.repay(*sequence);
    core.run(sequences);
  }
}

std::unique_ptr<RowCache> RowCache::fork(const std::vector<std::int64_t>& rows) const {
  const std::lock_guard<std::recursive_mutex> alone(pool()->turn);
  auto twin = std::make_unique<RowCache>(pool(), static_cast<std::int64_t>(rows.size()), capacity_, loops_, policy_);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    Sequence& forked = pool()->core->fork(*sequences_[static_cast<std::size_t>(rows[i])]);  // may throw: `twin` is whole then
    pool()->core->close(*twin->sequences_[i]);
    twin->sequences_[i] = &forked;
  }
  return twin;
}

void RowCache::truncate(std::size_t row, std::int64_t length) {
  const std::lock_guard<std::recursive_mutex> alone(pool()->turn);
  pool()->core->truncate(*sequences_[row], length);
}

namespace {

// Copies a table's lines of `length` positions, slot by slot, in one direction or the other.
template <typename Copy>
void each_piece(const PagedCache& cache, const Table& table, std::int64_t length, const Copy& copy) {
  const std::int64_t line = cache.page_bytes() / kPage;
  for (std::int64_t slot = 0; slot < cache.slots(); ++slot)
    for (std::int64_t first = 0; first < length; first += kPage)
      copy(cache.page(slot, table[static_cast<std::size_t>(first / kPage)]), std::min(kPage, length - first) * line);
}

}  // namespace

// Of a position's lines in all slots.
std::size_t RowCache::line_bytes(bool around) const {
  const Core& core = *pool()->core;
  const PagedCache* cache = around ? core.around : core.loop;
  if (cache && !cache->on_host()) throw RequestError("the cache's pages are on a device, and are not read or written");
  return cache ? static_cast<std::size_t>(cache->slots() * cache->page_bytes() / kPage) : 0;
}

std::vector<char> RowCache::read(std::size_t row, std::int64_t loop) {
  const std::lock_guard<std::recursive_mutex> alone(pool()->turn);
  Core& core = *pool()->core;
  Sequence& sequence = *sequences_[row];
  const bool around = loop < 0;
  std::vector<char> lines(static_cast<std::size_t>(sequence.length) * line_bytes(around));
  if (lines.empty()) return lines;
  core.repay(sequence, 1);
  core.run({&sequence});
  char* to = lines.data();
  const Table& table = around ? sequence.around : sequence.loop[static_cast<std::size_t>(loop)];
  each_piece(around ? *core.around : *core.loop, table, sequence.length, [&](const char* page, std::int64_t bytes) {
    std::memcpy(to, page, static_cast<std::size_t>(bytes));
    to += bytes;
  });
  return lines;
}

void RowCache::write(std::size_t row, std::int64_t length, const std::vector<char>& around, const std::vector<char>& loops) {
  const std::lock_guard<std::recursive_mutex> alone(pool()->turn);
  Core& core = *pool()->core;
  Sequence& sequence = *sequences_[row];
  const std::size_t of_around = static_cast<std::size_t>(length) * line_bytes(true);
  const std::size_t of_loops = static_cast<std::size_t>(length * sequence.limit) * line_bytes(false);
  if (around.size() != of_around || loops.size() != of_loops)
    throw RequestError("lines of " + std::to_string(length) + " tokens take " + std::to_string(of_around) + " and " +
                       std::to_string(of_loops) + " bytes, found " + std::to_string(around.size()) + " and " +
                       std::to_string(loops.size()));
  core.truncate(sequence, 0);
  if (!length) return;
  const char* from = around.data();
  const auto put = [&](PagedCache& cache, Table& table) {
    cache.extend(table, 0, length - 1);
    each_piece(cache, table, length, [&](char* page, std::int64_t bytes) {
      std::memcpy(page, from, static_cast<std::size_t>(bytes));
      from += bytes;
    });
  };
  if (core.around) put(*core.around, sequence.around);
  from = loops.data();
  for (Table& table : sequence.loop) put(*core.loop, table);
  sequence.length = sequence.answered = length;
  std::fill(sequence.filled.begin(), sequence.filled.end(), length);
}

}  // namespace mythos::engine
