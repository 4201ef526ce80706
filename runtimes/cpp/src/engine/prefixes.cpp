#include "engine/prefixes.hpp"

#include <algorithm>

#include "row_ports.hpp"

namespace mythos::engine {

std::optional<std::pair<Sequence*, std::int64_t>> Prefixes::find(const Ids& ids, const std::string& kind) {
  const Keys keys = hashes(ids, ids.size() - 1, kind);
  for (auto key = keys.rbegin(); key != keys.rend(); ++key) {
    const auto found = by_hash_.find(*key);
    if (found == by_hash_.end()) continue;
    kept_.splice(kept_.end(), kept_, found->second);
    const Kept& kept = *found->second;
    const std::size_t most = std::min(kept.ids.size(), ids.size() - 1);
    const auto end = ids.begin() + static_cast<std::ptrdiff_t>(most);
    return std::pair{kept.sequence, std::mismatch(ids.begin(), end, kept.ids.begin()).first - ids.begin()};
  }
  return std::nullopt;
}

bool Prefixes::keep(Sequence& sequence, const Ids& ids, const std::string& kind) {
  Keys keys = hashes(ids, ids.size(), kind);
  if (most_ == 0 || keys.empty() || by_hash_.count(keys.back())) return false;
  while (static_cast<std::int64_t>(kept_.size()) >= most_) drop();
  kept_.push_back({&sequence, ids, std::move(keys)});
  for (const auto& key : kept_.back().keys) by_hash_[key] = std::prev(kept_.end());
  return true;
}

bool Prefixes::drop() {
  if (kept_.empty()) return false;
  drop(kept_.begin());
  return true;
}

bool Prefixes::drop_lagging(std::int64_t more_than, const Sequence* but) {
  auto chosen = kept_.end();
  auto most = static_cast<std::size_t>(more_than);
  for (auto kept = kept_.begin(); kept != kept_.end(); ++kept)  // of some with as many the oldest
    if (kept->sequence != but && kept->sequence->lines.size() > most) chosen = kept, most = kept->sequence->lines.size();
  if (chosen == kept_.end()) return false;
  drop(chosen);
  return true;
}

void Prefixes::drop(std::list<Kept>::iterator kept) {
  for (const auto& key : kept->keys)
    if (const auto found = by_hash_.find(key); found != by_hash_.end() && found->second == kept) by_hash_.erase(found);
  Sequence& sequence = *kept->sequence;
  kept_.erase(kept);
  close_(sequence);
}

// Of the first page of the first `count` tokens, the first two, and so on.
Prefixes::Keys Prefixes::hashes(const Ids& ids, std::size_t count, const std::string& kind) {
  Keys keys;
  Sha256 chain;
  chain.update(reinterpret_cast<const unsigned char*>(kind.data()), kind.size());
  const auto page = static_cast<std::size_t>(kPage);
  for (std::size_t end = page; end <= count; end += page) {
    chain.update(reinterpret_cast<const unsigned char*>(&ids[end - page]), page * sizeof ids[0]);
    keys.push_back(Sha256(chain).digest());
  }
  return keys;
}

}  // namespace mythos::engine
