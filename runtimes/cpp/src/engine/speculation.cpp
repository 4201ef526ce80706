#include "engine/speculation.hpp"

#include <algorithm>
#include <cmath>
#include <set>

#include "batch.hpp"
#include "row_ports.hpp"

namespace mythos::engine {
namespace {

constexpr double kForget = 0.97;    // of what was counted, with each new count
constexpr std::int64_t kPeek = 128;  // rounds between two that try another depth
constexpr std::int64_t kKeep = 16;   // rounds that a choice holds for: Python cannot weigh all of them each time (speculation.py)
constexpr double kSpread = 0.05;    // of a call of one row, what another row costs, as long as nothing was measured
constexpr double kNothing = 1e-9;   // seconds

}  // namespace

void Line::add(double rows, double seconds, std::int64_t times) {
  const double kept = std::pow(kForget, static_cast<double>(times)), fresh = (1 - kept) / (1 - kForget);
  weight_ = kept * weight_ + fresh;
  rows_ = kept * rows_ + fresh * rows;
  seconds_ = kept * seconds_ + fresh * seconds;
  squares_ = kept * squares_ + fresh * rows * rows;
  products_ = kept * products_ + fresh * rows * seconds;
}

std::pair<double, double> Line::fit() const {
  if (weight_ == 0) return {0, 0};
  const double mean = rows_ / weight_, seconds = seconds_ / weight_;
  const double spread = squares_ / weight_ - mean * mean;
  double slope = seconds * kSpread / std::max(mean, 1.0);
  if (spread > 0.05) slope = std::max((products_ / weight_ - mean * seconds) / spread, 0.0);
  return {std::max(seconds - slope * mean, 0.0), slope};
}

void Speed::saw(const std::string& graph, std::int64_t rows, Time started, std::int64_t calls) {
  if (rows == 0) return;
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  lines[graph].add(static_cast<double>(rows / calls), seconds / static_cast<double>(calls), calls);
}

double Speed::of_call(const std::string& graph) const {
  const auto found = lines.find(graph);
  return found == lines.end() ? 0 : found->second.fit().first;
}

double Speed::of(const std::string& graph, double rows, double sharing) const {
  const auto found = lines.find(graph);
  if (found == lines.end()) return 0;
  const auto [call, row] = found->second.fit();
  return call / sharing + row * rows;
}

double Speed::per_token(double loops, double sharing) const {
  return of(kEnter, 1, sharing) + loops * of(kStep, 1, sharing) + of(kLeave, 1, sharing);
}

Speculation::Speculation(std::int64_t loops, std::optional<std::int64_t> fixed, std::int64_t most)
    : most_(most), fixed_(fixed), loops_(static_cast<double>(loops)), deepest_(loops_) {
  if (fixed) {
    depths_ = {integer(*fixed, "speculate", 1, kMostLoops)};
  } else {
    for (const std::int64_t depth : std::set<std::int64_t>{1, 2, 3, loops / 2})
      if (depth >= 1 && depth < loops) depths_.push_back(depth);
  }
  for (const std::int64_t depth : depths_) shares_[depth];
}

std::pair<std::int64_t, std::int64_t> Speculation::choose(std::int64_t running, std::int64_t room) {
  const std::int64_t most = std::min(most_, room);
  if (most < 1 || depths_.empty()) return {0, 0};
  ++turn_;
  const auto untried = std::find_if(depths_.begin(), depths_.end(), [&](std::int64_t depth) { return shares_[depth].tried < 1; });
  const bool all_tried = untried == depths_.end();
  if (!all_tried && turn_ > 2) return {*untried, std::min<std::int64_t>(2, most)};  // the first tokens measure the calls
  if (all_tried && turn_ % kPeek == 0)
    return {depths_[static_cast<std::size_t>(turn_ / kPeek) % depths_.size()], 1};
  if (held_ && turn_ % kKeep && !fixed_) return {held_->first, std::min(held_->second, most)};
  double best = 1 / std::max(speed.per_token(loops_, static_cast<double>(running)), kNothing);
  std::pair<std::int64_t, std::int64_t> chosen{0, 0};
  for (const std::int64_t depth : depths_) {
    if (!all_tried && !fixed_) break;
    for (std::int64_t count = 1; count <= most; ++count) {
      const double gain = tokens_of(depth, count) / std::max(seconds_of(depth, count, running), kNothing);
      if (gain > best || (fixed_ && chosen.second == 0)) best = gain, chosen = {depth, count};
    }
  }
  if (all_tried) held_ = chosen;
  return chosen;
}

void Speculation::saw(std::int64_t depth, std::int64_t drafts, std::int64_t right, std::int64_t deepest) {
  const std::int64_t judged = std::min(right + 1, drafts);
  const double forget = std::pow(kForget, static_cast<double>(judged));
  Share& share = shares_[depth];
  share.right = forget * share.right + static_cast<double>(right);
  share.tried = forget * share.tried + static_cast<double>(judged);
  deepest_ += (static_cast<double>(deepest) - deepest_) * (1 - kForget);
  ++rounds, tokens += right + 1;
  drafted += drafts, accepted += right;
}

void Speculation::went(std::int64_t loops) { loops_ += (static_cast<double>(loops) - loops_) * (1 - kForget); }

// Tokens that a round should give: each draft is right with the same probability, where those before it are.
double Speculation::tokens_of(std::int64_t depth, std::int64_t count) const {
  const Share& share = shares_.at(depth);
  const double right = (share.right + 0.5) / (share.tried + 1);
  double tokens = 0;
  for (std::int64_t i = 0; i <= count; ++i) tokens += std::pow(right, static_cast<double>(i));
  return tokens;
}

// Seconds that a round should take.
double Speculation::seconds_of(std::int64_t depth, std::int64_t count, std::int64_t running) const {
  const auto drafts = static_cast<double>(count), sharing = static_cast<double>(running);
  const double shallow = std::min(static_cast<double>(depth), loops_);
  const double drafting = drafts * (speed.of(kStep, 1, sharing) * shallow + speed.of(kLeave, 1, sharing));
  const double first = (drafts + 1) * speed.of(kEnter, 1, sharing) + shallow * speed.of(kStep, 1, sharing);
  const double rest = std::max(std::max(deepest_, loops_) - static_cast<double>(depth), 0.0) * speed.of(kStep, drafts + 1, sharing);
  return drafting + first + rest + speed.of(kLeave, drafts + 1, sharing);
}

std::unique_ptr<Speculation> speculation_of(std::int64_t speculate, std::int64_t trained_loops) {
  if (speculate == 0) return nullptr;
  return std::make_unique<Speculation>(trained_loops, speculate == kAuto ? std::nullopt : std::optional(speculate));
}

}  // namespace mythos::engine
