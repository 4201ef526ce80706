// Prompts that begin alike: what is cached of a sequence that has ended serves the next one, exactly (prefixes.py).
//
// An ended sequence is kept, found by hashes of its tokens, a page of them at a time and chained. A new one forks what they
// have in common: pages are shared, and positions that lag keep lagging. When pages are short the oldest one goes, when
// states are the one that lags most.
#pragma once

#include <functional>
#include <list>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/sequence.hpp"
#include "sha256.hpp"

namespace mythos::engine {

using Ids = std::vector<std::int64_t>;

// Ended sequences by what they begin with.
class Prefixes {
 public:
  // `most`: how many are kept; 0: none. `close` gives back what a sequence holds.
  Prefixes(std::int64_t most, std::function<void(Sequence&)> close) : most_(most), close_(std::move(close)) {}

  std::size_t size() const { return kept_.size(); }
  // The sequence that shares most with `ids`, and how many tokens; whole pages, and never the last token. `kind`: what else
  // has to be the same (limit, threshold, ...).
  std::optional<std::pair<Sequence*, std::int64_t>> find(const Ids& ids, const std::string& kind);
  // Keeps an ended sequence whose tokens are `ids`; whether it was (else it is the caller's to close).
  bool keep(Sequence& sequence, const Ids& ids, const std::string& kind);
  // Closes the one that was used longest ago; whether there was one.
  bool drop();
  // Closes the one with the most states, where it has more than so many; whether one had. `but`: is not to be closed.
  bool drop_lagging(std::int64_t more_than, const Sequence* but = nullptr);
  void clear() {
    while (drop()) continue;
  }

 private:
  using Keys = std::vector<Sha256::Digest>;
  struct Kept {
    Sequence* sequence;
    Ids ids;  // that entered
    Keys keys;
  };
  void drop(std::list<Kept>::iterator kept);
  static Keys hashes(const Ids& ids, std::size_t count, const std::string& kind);

  std::int64_t most_;
  std::function<void(Sequence&)> close_;
  std::list<Kept> kept_;  // the one that was used longest ago first
  std::map<Sha256::Digest, std::list<Kept>::iterator> by_hash_;
};

}  // namespace mythos::engine
