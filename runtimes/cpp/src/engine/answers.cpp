// Of the engine: how deep a position may go, what is drafted, and the tokens that answers lead to (engine.py).
#include <algorithm>
#include <numeric>

#include "engine/engine.hpp"
#include "row_ports.hpp"

namespace mythos::engine {

// -- depth ---------------------------------------------------------------------------------------------------------------

// The most loops of the position that enters, by the budget.
std::optional<std::int64_t> Engine::cap(const Work& work) const {
  const Budget& budget = work.budget;
  std::optional<double> allowed;
  const auto allow = [&](double loops) { allowed = allowed ? std::min(*allowed, loops) : loops; };
  if (budget.loops_per_token)
    allow(*budget.loops_per_token * static_cast<double>(work.depth.size() + 1) -
          std::accumulate(work.depth.begin(), work.depth.end(), 0.0));
  if (budget.latency_ms) {  // a call is waited for as a whole, whoever is in it
    const double step = speed_.of(kStep, static_cast<double>(running_.size()));
    if (step > 0) allow((*budget.latency_ms / 1e3 - speed_.per_token(0)) / step);
  }
  if (!allowed) return std::nullopt;
  return static_cast<std::int64_t>(std::max(1.0, std::min(*allowed, static_cast<double>(work.limit))));
}

// The caps of positions that enter, and whether they are forced: given depths, and those that a budget has set. Both are set
// again where a request is computed anew.
void Engine::set_caps(const Work& work, Chunk& chunk) const {
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

// The drafts of the round that begins, which has so many states.
std::optional<Round> Engine::plan(const Work& work, std::int64_t free) const {
  const Request& request = work.request;
  if (!speculation_ || is_set(work.budget) || work.policy == Policy::share || work.limit < 2) return std::nullopt;
  const std::int64_t room = request.max_new_tokens - static_cast<std::int64_t>(work.tokens.size()) - 1;
  const std::int64_t rows = std::min(core_.graphs->most_rows, free);  // a round that has begun does not repay
  const auto [depth, length] = speculation_->choose(static_cast<std::int64_t>(running_.size()),
                                                    std::min(room, std::max<std::int64_t>(rows - 1, 0)));
  if (length == 0 || depth >= work.limit) return std::nullopt;
  return Round{work.sequence->length, depth, length, work.sampler};
}

// -- answers -------------------------------------------------------------------------------------------------------------

// The tokens that an answer leads to: of drafts, all that were right, and the one behind them.
void Engine::answered(const std::shared_ptr<Work>& work, bool early, Answer& answer, std::vector<Token>& tokens) {
  if (work->left()) {  // a piece of a prompt
    core_.repay(*work->sequence);
  } else if (!work->round) {
    if (choose(work, std::move(answer.logits), answer.depth[0], tokens) && speculation_) speculation_->went(answer.depth[0]);
    if (work->sequence) core_.repay(*work->sequence);
  } else if (early) {
    try {
      work->round->drafts.push_back(work->round->sampler.choose(answer.logits.data()));
    } catch (const ResultError& error) {
      fail(work, error);
    }
  } else {
    verified(work, answer, tokens);
  }
}

// The tokens of a round: each draft was right if it is what its position's token turns out to be.
void Engine::verified(const std::shared_ptr<Work>& work, const Answer& answer, std::vector<Token>& tokens) {
  const Round round = std::move(*work->round);
  work->round.reset();
  const std::size_t before = tokens.size();
  std::size_t right = 0;
  auto logits = answer.logits.begin();
  for (std::size_t row = 0; row < answer.depth.size(); ++row, logits += core_.spec().vocab_size) {
    if (!choose(work, {logits, logits + core_.spec().vocab_size}, answer.depth[row], tokens)) return;
    if (!work->finished.empty() || row == round.drafts.size() || tokens.back().id != round.drafts[row]) break;
    ++right;
  }
  const auto deepest = *std::max_element(answer.depth.begin(), answer.depth.begin() + static_cast<std::ptrdiff_t>(right + 1));
  speculation_->saw(round.depth, static_cast<std::int64_t>(round.drafts.size()), static_cast<std::int64_t>(right), deepest);
  for (std::size_t i = before; i < tokens.size(); ++i) speculation_->went(tokens[i].depth);
  if (!work->sequence) return;
  core_.truncate(*work->sequence, round.first + static_cast<std::int64_t>(right) + 1);
  work->fed = work->sequence->length;
  core_.repay(*work->sequence);
}

// The next token of a request; whether there was one.
bool Engine::choose(const std::shared_ptr<Work>& work, std::vector<float> logits, std::int32_t depth, std::vector<Token>& all) {
  const Request& request = work->request;
  std::vector<std::int64_t>& tokens = work->tokens;
  std::int64_t chosen = 0;
  try {
    chosen = work->sampler.choose(logits.data());
  } catch (const ResultError& error) {  // of this request alone
    fail(work, error);
    return false;
  }
  const bool capped = work->cap && depth == *work->cap && *work->cap < work->limit;
  tokens.push_back(chosen);
  work->depth.push_back(depth);
  work->capped.push_back(capped);
  all.push_back({work, chosen, depth, std::move(logits), capped});
  const auto ends = [&](const std::vector<std::int64_t>& ids) {
    return tokens.size() >= ids.size() && std::equal(ids.rbegin(), ids.rend(), tokens.rbegin());
  };
  if (std::count(request.eos.begin(), request.eos.end(), chosen))
    end(work, kEos);
  else if (std::any_of(request.stop.begin(), request.stop.end(), ends))
    end(work, kStop);
  else if (static_cast<std::int64_t>(tokens.size()) == request.max_new_tokens)
    end(work, kLength);
  return true;
}

}  // namespace mythos::engine
