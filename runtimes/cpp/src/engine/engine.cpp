#include "engine/engine.hpp"

#include <algorithm>
#include <cmath>

#include "batch.hpp"
#include "row_ports.hpp"

namespace mythos::engine {
namespace {

template <typename Several>
auto find(Several& several, const Running* running) {
  return std::find_if(several.begin(), several.end(), [&](const auto& each) { return each.get() == running; });
}

}  // namespace

Work::Work(Request given, std::int64_t vocab_size)
    : Running{std::move(given), 0, 0, {}, {}, "", ""}, sampler(request.sampling, request.row, vocab_size, request.prompt) {}

Engine::Engine(Core& core, std::int64_t most_running, std::int64_t chunk, double patience)
    : core_(core), most_running_(integer(most_running, "most_running", 1)),
      chunk_(std::min(integer(chunk, "chunk", 1), core.graphs->most_rows)), patience_(number(patience, "patience")) {}

std::shared_ptr<const Running> Engine::submit(Request request) {
  const LoopSpec& spec = core_.spec();
  check_prompts({request.prompt}, spec.vocab_size);
  check_sampling(request.sampling);
  integer(request.max_new_tokens, "max_new_tokens", 1);
  const std::int64_t limit = request.max_loops.value_or(spec.trained_loops);
  integer(limit, "max_loops", 0, kMostLoops);
  const float threshold = threshold_of(request.halt_threshold, spec, 0);
  check_room(static_cast<std::int64_t>(request.prompt.size()) + request.max_new_tokens - 1, limit);
  auto work = std::make_shared<Work>(std::move(request), spec.vocab_size);
  work->limit = limit, work->threshold = threshold;
  waiting_.push_back(work);
  return work;
}

void Engine::check_room(std::int64_t positions, std::int64_t limit) const {
  const std::int64_t blocks = (positions + kPage - 1) / kPage;
  if (positions > core_.spec().max_seq_len)
    throw CapacityError("a request of " + std::to_string(positions) + " positions exceeds the " +
                        std::to_string(core_.spec().max_seq_len) + " that this model takes");
  const bool fits = !core_.around || blocks <= core_.around->pages();
  if (!fits || blocks * limit > core_.loop->pages() || positions > core_.states->lines())
    throw CapacityError("a request of " + std::to_string(positions) + " positions at " + std::to_string(limit) +
                        " loops does not fit the engine's memory by itself: give it more, or ask for less");
}

void Engine::cancel(const std::shared_ptr<const Running>& running) {
  for (const auto* several : {&running_, &through_})
    if (const auto found = find(*several, running.get()); found != several->end()) return end(std::shared_ptr(*found), "cancelled");
  if (const auto found = find(waiting_, running.get()); found != waiting_.end()) end(std::shared_ptr(*found), "cancelled");
}

std::vector<Token> Engine::tick() {
  std::vector<Token> tokens = leave();
  admit();
  enter();
  std::vector<Sequence*> done;
  try {
    done = core_.step();
  } catch (const OutOfPages&) {
    send_back();
    return tokens;
  }
  for (const Sequence* sequence : done) {
    const auto work = *std::find_if(running_.begin(), running_.end(), [&](const auto& each) { return each->sequence == sequence; });
    if (find(through_, work.get()) == through_.end()) through_.push_back(work);
  }
  return tokens;
}

// -- the stages of a tick ------------------------------------------------------------------------------------------------

std::vector<Token> Engine::leave() {
  const auto looping = static_cast<std::size_t>(
      std::count_if(running_.begin(), running_.end(), [](const auto& each) { return each->sequence->job.has_value(); }));
  // As Python rounds: halves to the even.
  const auto enough = static_cast<std::size_t>(std::max(1.0, std::nearbyint(patience_ * static_cast<double>(running_.size()))));
  if (through_.empty() || (through_.size() < enough && through_.size() < looping)) return {};
  Works leaving;
  std::vector<Sequence*> sequences;
  std::int64_t rows = 0;
  for (const auto& work : through_) {
    rows += work->sequence->job->last - work->sequence->job->first + 1;
    if (rows > core_.graphs->most_rows) break;
    leaving.push_back(work);
    sequences.push_back(work->sequence);
  }
  through_.erase(through_.begin(), through_.begin() + static_cast<std::ptrdiff_t>(leaving.size()));
  std::vector<Answer> answers = core_.leave(sequences);
  std::vector<Token> tokens;
  for (std::size_t i = 0; i < leaving.size(); ++i)
    if (Token token; choose(leaving[i], std::move(answers[i]), token)) tokens.push_back(std::move(token));
  return tokens;
}

// The next token, where the last known position was answered.
bool Engine::choose(const std::shared_ptr<Work>& work, Answer answer, Token& token) {
  if (work->left()) return false;
  const Request& request = work->request;
  std::vector<std::int64_t>& tokens = work->tokens;
  try {
    token = {work, work->sampler.choose(answer.logits.data()), answer.depth[0], std::move(answer.logits)};
  } catch (const ResultError& error) {  // of this request alone
    work->error = error.what();
    end(work, "error");
    return false;
  }
  tokens.push_back(token.id);
  work->depth.push_back(token.depth);
  const auto ends = [&](const std::vector<std::int64_t>& ids) {
    return tokens.size() >= ids.size() && std::equal(ids.rbegin(), ids.rend(), tokens.rbegin());
  };
  if (std::count(request.eos.begin(), request.eos.end(), token.id))
    end(work, "eos");
  else if (std::any_of(request.stop.begin(), request.stop.end(), ends))
    end(work, "stop");
  else if (static_cast<std::int64_t>(tokens.size()) == request.max_new_tokens)
    end(work, "length");
  return true;
}

void Engine::admit() {
  // Who was sent back would take the pages that it gave again, and the others would never be done.
  while (!waiting_.empty() && static_cast<std::int64_t>(running_.size()) < most_running_ && !full_) {
    const auto work = waiting_.front();
    waiting_.pop_front();
    work->sequence = &core_.open(work->limit, work->threshold, work->request.whole, work->request.state_seed);
    running_.push_back(work);
  }
}

void Engine::enter() {
  std::int64_t left = core_.graphs->most_rows;
  Works order = running_;  // a token before a prompt
  std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a->left() < b->left(); });
  Works entering;
  std::vector<Chunk> chunks;
  for (const auto& work : order) {
    if (!left || !work->left() || work->sequence->job) continue;
    const std::int64_t count = std::min({chunk_, left, work->left()});
    const auto& prompt = work->request.prompt;
    std::vector<std::int64_t> ids;
    for (auto at = static_cast<std::size_t>(work->fed); ids.size() < static_cast<std::size_t>(count); ++at)
      ids.push_back(at < prompt.size() ? prompt[at] : work->tokens[at - prompt.size()]);
    chunks.push_back({work->sequence, std::move(ids), count == work->left()});
    entering.push_back(work);
    left -= count;
  }
  while (!chunks.empty()) {
    try {
      core_.enter(chunks);
    } catch (const OutOfPages&) {
      chunks.pop_back();  // the longest waits, unless it is alone
      const bool looping = std::any_of(running_.begin(), running_.end(), [](const auto& each) { return each->sequence->job.has_value(); });
      if (!chunks.empty() || looping) continue;
      send_back();
      return;
    }
    for (std::size_t i = 0; i < chunks.size(); ++i) entering[i]->fed += static_cast<std::int64_t>(chunks[i].ids.size());
    return;
  }
}

// -- ends ----------------------------------------------------------------------------------------------------------------

void Engine::end(const std::shared_ptr<Work>& work, const char* reason) {
  work->finished = reason;
  if (!work->sequence) {
    waiting_.erase(find(waiting_, work.get()));
    return;
  }
  stop(work);
  full_ = false;
}

void Engine::stop(const std::shared_ptr<Work>& work) {
  core_.close(*work->sequence);
  work->sequence = nullptr, work->fed = 0;
  running_.erase(find(running_, work.get()));
  if (const auto found = find(through_, work.get()); found != through_.end()) through_.erase(found);
}

// Makes room: the request that was admitted last waits until one ends, and will be computed anew.
void Engine::send_back() {
  const auto last = running_.back();  // not the only one, which fits: see `submit`
  stop(last);
  waiting_.push_front(last);
  full_ = true;
}

}  // namespace mythos::engine
