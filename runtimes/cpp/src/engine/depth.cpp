#include "engine/depth.hpp"

#include <algorithm>
#include <numeric>

#include "row_ports.hpp"

namespace mythos::engine {

std::optional<std::int64_t> budgeted_cap(const Work& work, const Speed& speed, std::int64_t rows) {
  const Budget& budget = work.budget;
  std::optional<double> allowed;
  const auto allow = [&](double loops) { allowed = allowed ? std::min(*allowed, loops) : loops; };
  if (budget.loops_per_token)
    allow(*budget.loops_per_token * static_cast<double>(work.depth.size() + 1) -
          std::accumulate(work.depth.begin(), work.depth.end(), 0.0));
  if (budget.latency_ms) {  // a call is waited for as a whole, whoever is in it
    const double step = speed.of(kStep, static_cast<double>(rows));
    if (step > 0) allow((*budget.latency_ms / 1e3 - speed.per_token(0)) / step);
  }
  if (!allowed) return std::nullopt;
  return static_cast<std::int64_t>(std::max(1.0, std::min(*allowed, static_cast<double>(work.limit))));
}

void set_caps(const Work& work, Chunk& chunk) {
  const std::vector<std::int64_t>& depths = work.request.depths;
  if (depths.empty() && !is_set(work.budget)) return;
  chunk.caps.assign(chunk.ids.size(), static_cast<std::int32_t>(work.limit));
  chunk.forced.assign(chunk.ids.size(), false);
  const std::int64_t behind = static_cast<std::int64_t>(work.request.prompt.size()) - 1;  // its answer is the first token
  const std::int64_t first = work.sequence->length, end = first + static_cast<std::int64_t>(chunk.ids.size());
  for (std::int64_t position = std::max(first, behind); position < end; ++position) {
    const auto token = static_cast<std::size_t>(position - behind), at = static_cast<std::size_t>(position - first);
    if (token < work.tokens.size()) {
      chunk.forced[at] = token < depths.size() || work.capped[token];
      if (chunk.forced[at]) chunk.caps[at] = work.depth[token];
    } else if (token < depths.size()) {
      chunk.caps[at] = static_cast<std::int32_t>(depths[token]), chunk.forced[at] = true;
    } else if (work.cap) {
      chunk.caps[at] = static_cast<std::int32_t>(*work.cap);
    }
  }
}

std::optional<Round> plan_round(const Work& work, Speculation* speculation, std::int64_t sharing, std::int64_t room) {
  const Request& request = work.request;
  if (!speculation || is_set(work.budget) || work.policy == Policy::share || work.limit < 2) return std::nullopt;
  const std::int64_t left = request.max_new_tokens - static_cast<std::int64_t>(work.tokens.size()) - 1;
  const auto [depth, length] = speculation->choose(sharing, std::min(left, room));
  if (length == 0 || depth >= work.limit) return std::nullopt;
  return Round{work.sequence->length, depth, length, work.sampler};
}

}  // namespace mythos::engine
