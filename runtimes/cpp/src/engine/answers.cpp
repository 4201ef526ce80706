#include "engine/answers.hpp"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <utility>

#include "row_ports.hpp"

namespace mythos::engine {

void Answers::leave(std::vector<Token>& tokens) {
  Works& through = queues_.through;
  if (through.empty() || pace_.waits(queues_.traffic())) return;
  pace_.left();
  std::vector<Leaving> leaving;
  std::int64_t rows = 0;
  for (const auto& work : through) {
    const Job& job = *work->sequence->job;
    rows += job.last - job.first + 1;
    if (rows > core_.graphs->most_rows) break;
    const bool early = job.stop < work->limit;
    leaving.push_back({work->sequence, work->round && !early, early});
  }
  const auto end = through.begin() + static_cast<std::ptrdiff_t>(leaving.size());
  const Works left(through.begin(), end);
  through.erase(through.begin(), end);
  const auto started = std::chrono::steady_clock::now();
  std::vector<Answer> answers = core_.leave(leaving);
  speed_.saw(kLeave, static_cast<std::int64_t>(leaving.size()), started);
  std::size_t i = 0;
  try {
    for (; i < left.size(); ++i) answered(left[i], leaving[i].early, answers[i], tokens);
  } catch (...) {
    Works unanswered;
    std::copy_if(left.begin() + static_cast<std::ptrdiff_t>(i), left.end(), std::back_inserter(unanswered),
                 [](const auto& work) { return work->sequence != nullptr; });
    queues_.send_back(unanswered);
    throw;
  }
}

// The tokens that an answer leads to: of drafts, all that were right, and the one behind them.
void Answers::answered(const std::shared_ptr<Work>& work, bool early, Answer& answer, std::vector<Token>& tokens) {
  if (work->left()) {  // a piece of a prompt
    core_.repay(*work->sequence);
  } else if (!work->round) {
    if (choose(work, std::move(answer.logits), answer.depth[0], tokens) && speculation_) speculation_->went(answer.depth[0]);
    if (work->sequence) core_.repay(*work->sequence);
  } else if (early) {
    try {
      work->round->drafts.push_back(work->round->sampler.choose(answer.logits.data()));
    } catch (const ResultError& error) {
      queues_.fail(work, error);
    }
  } else {
    verified(work, answer, tokens);
  }
}

// The tokens of a round: each draft was right if it is what its position's token turns out to be.
void Answers::verified(const std::shared_ptr<Work>& work, const Answer& answer, std::vector<Token>& tokens) {
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
bool Answers::choose(const std::shared_ptr<Work>& work, std::vector<float> logits, std::int32_t depth, std::vector<Token>& all) {
  const Request& request = work->request;
  std::vector<std::int64_t>& tokens = work->tokens;
  std::int64_t chosen = 0;
  try {
    chosen = work->sampler.choose(logits.data());
  } catch (const ResultError& error) {  // of this request alone
    queues_.fail(work, error);
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
    queues_.end(work, kEos);
  else if (std::any_of(request.stop.begin(), request.stop.end(), ends))
    queues_.end(work, kStop);
  else if (static_cast<std::int64_t>(tokens.size()) == request.max_new_tokens)
    queues_.end(work, kLength);
  return true;
}

}  // namespace mythos::engine
