#include "engine/engine.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <set>
#include <utility>

#include "batch.hpp"
#include "row_ports.hpp"
#include "text.hpp"

namespace mythos::engine {
namespace {

template <typename Several>
auto find(Several& several, const Running* running) {
  return std::find_if(several.begin(), several.end(), [&](const auto& each) { return each.get() == running; });
}

}  // namespace

Engine::Engine(Core& core, const EngineOptions& options, Speculation* speculation)
    : core_(core), most_running_(integer(options.most_running, "most_running", 1)),
      chunk_(std::min(integer(options.chunk, "chunk", 1), core.graphs->most_rows)),
      budget_(options.budget),
      prefixes_(integer(options.prefixes, "prefixes", 0), [&core](Sequence& sequence) { core.close(sequence); }),
      speculation_(speculation), speed_(speculation ? speculation->speed : own_speed_),
      pace_(options.patience, options.loops_per_call, speed_) {
  if (options.patience) number(*options.patience, "patience");
  if (options.loops_per_call) integer(*options.loops_per_call, "loops_per_call", 1);
  check_budget(budget_);
}

// -- coming and going ----------------------------------------------------------------------------------------------------

std::shared_ptr<const Running> Engine::submit(Request request) {
  const LoopSpec& spec = core_.spec();
  check_prompts({request.prompt}, spec.vocab_size);
  check_sampling(request.sampling);
  integer(request.max_new_tokens, "max_new_tokens", 1);
  const std::int64_t limit = integer(request.max_loops.value_or(spec.trained_loops), "max_loops", 0, kMostLoops);
  policy_of(request.policy);
  check_room(saturated_sum(static_cast<std::int64_t>(request.prompt.size()), request.max_new_tokens - 1), limit);
  const float threshold = threshold_of(request.halt_threshold, spec, 0);
  const Budget budget = request.budget.value_or(budget_);
  check_budget(budget);
  if (!request.depths.empty()) check_halts("depths cannot be given");
  for (const std::int64_t depth : request.depths) integer(depth, "depths", std::min<std::int64_t>(limit, 1), limit);
  auto work = std::make_shared<Work>(std::move(request), spec.vocab_size);
  work->limit = limit, work->threshold = threshold, work->budget = budget;
  waiting_.push_back(work);
  return work;
}

void Engine::cancel(const std::shared_ptr<const Running>& running) {
  if (const auto found = find(running_, running.get()); found != running_.end()) return end(std::shared_ptr(*found), kCancelled);
  if (const auto found = find(waiting_, running.get()); found != waiting_.end()) end(std::shared_ptr(*found), kCancelled);
}

std::int64_t Engine::pages_running() const {
  std::set<std::int64_t> around, loop;
  for (const auto& work : running_) {
    around.insert(work->sequence->around.begin(), work->sequence->around.end());
    for (const Table& table : work->sequence->loop) loop.insert(table.begin(), table.end());
  }
  return static_cast<std::int64_t>(around.size() + loop.size());
}

void Engine::close() {
  while (!running_.empty()) cancel(running_.front());
  while (!waiting_.empty()) cancel(waiting_.front());
  prefixes_.clear();
  failure_ = nullptr, concerned_.clear();
}

void Engine::check_room(std::int64_t positions, std::int64_t limit) const {
  const std::int64_t blocks = (positions + kPage - 1) / kPage;
  if (positions > core_.spec().max_seq_len)
    throw CapacityError("a request of " + std::to_string(positions) + " positions exceeds the " +
                        std::to_string(core_.spec().max_seq_len) + " that this model takes");
  const bool fits = !core_.around || blocks <= core_.around->pages();
  if (!fits || blocks * limit > core_.loop->pages())
    throw CapacityError("a request of " + std::to_string(positions) + " positions at " + std::to_string(limit) +
                        " loops does not fit the engine's memory by itself: give it more, or ask for less");
}

void Engine::check_budget(const Budget& budget) const {
  if (is_set(budget)) check_halts("a budget cannot be kept");
  if (budget.loops_per_token && number(*budget.loops_per_token, "loops_per_token") < 1)
    throw RequestError("loops_per_token should be at least 1, found " + py_repr(*budget.loops_per_token));
  if (budget.latency_ms && number(*budget.latency_ms, "latency_ms") <= 0)
    throw RequestError("latency_ms should be above 0, found " + py_repr(*budget.latency_ms));
}

void Engine::check_halts(const std::string& what) const {
  if (!core_.spec().exit.knob("halt_threshold"))
    throw RequestError(what + ": no position of this model halts by itself; give max_loops instead");
}

// -- a tick --------------------------------------------------------------------------------------------------------------

std::vector<Token> Engine::tick() {
  if (failure_) {
    const std::exception_ptr error = std::exchange(failure_, nullptr);
    const Works concerned = std::exchange(concerned_, {});
    if (std::all_of(concerned.begin(), concerned.end(), [](const auto& work) { return work->finished.empty(); }))
      std::rethrow_exception(error);
  }
  std::vector<Token> tokens = leave();
  try {
    advance();
  } catch (...) {
    if (tokens.empty()) throw;
    concerned_ = running_;
    concerned_.insert(concerned_.end(), waiting_.begin(), waiting_.end());
    if (!concerned_.empty()) failure_ = std::current_exception();
  }
  return tokens;
}

void Engine::advance() {
  admit();
  enter();
  std::vector<Sequence*> sequences, done;
  for (const auto& work : running_) sequences.push_back(work->sequence);
  const std::int64_t rows = core_.rows, steps = core_.steps;
  std::int64_t loops = 0;
  try {
    timed(kStep, [&] {
      done = core_.step(sequences, [&](std::int64_t of_call) { return pace_.most_loops(of_call, traffic()); });
      loops = core_.steps - steps;
      return Calls{loops, core_.rows - rows};
    });
  } catch (const OutOfPages&) {
    make_room();
    return;
  }
  pace_.ran(loops, traffic());
  for (const Sequence* sequence : done) {
    const auto work = *std::find_if(running_.begin(), running_.end(), [&](const auto& each) { return each->sequence == sequence; });
    if (find(through_, work.get()) == through_.end()) through_.push_back(work);
  }
}

Traffic Engine::traffic() const {
  const auto looping =
      std::count_if(running_.begin(), running_.end(), [](const auto& each) { return each->sequence->job.has_value(); });
  return {static_cast<std::int64_t>(running_.size()), looping, static_cast<std::int64_t>(through_.size())};
}

// A call, or several loops in one, which answers with the rows that it took.
template <typename Call>
void Engine::timed(const char* graph, const Call& call) {
  const auto started = std::chrono::steady_clock::now();
  if (const Calls calls = call(); calls.rows > 0) {
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
    speed_.add(graph, static_cast<double>(calls.rows / calls.count), seconds / static_cast<double>(calls.count), calls.count);
  }
}

std::vector<Token> Engine::leave() {
  if (through_.empty() || pace_.waits(traffic())) return {};
  pace_.left();
  std::vector<Leaving> leaving;
  std::int64_t rows = 0;
  for (const auto& work : through_) {
    const Job& job = *work->sequence->job;
    rows += job.last - job.first + 1;
    if (rows > core_.graphs->most_rows) break;
    const bool early = job.stop < work->limit;
    leaving.push_back({work->sequence, work->round && !early, early});
  }
  const auto end = through_.begin() + static_cast<std::ptrdiff_t>(leaving.size());
  const Works left(through_.begin(), end);
  through_.erase(through_.begin(), end);
  std::vector<Answer> answers;
  timed(kLeave, [&] {
    answers = core_.leave(leaving);
    return Calls{1, static_cast<std::int64_t>(leaving.size())};
  });
  std::vector<Token> tokens;
  for (std::size_t i = 0; i < left.size(); ++i) answered(left[i], leaving[i].early, answers[i], tokens);
  return tokens;
}

void Engine::admit() {
  // Who was sent back would take the pages that it gave again, and the others would never be done.
  while (!waiting_.empty() && static_cast<std::int64_t>(running_.size()) < most_running_ && !full_) {
    const auto work = waiting_.front();
    work->sequence = &begin(*work);  // where that fails it waits still
    waiting_.pop_front();
    running_.push_back(work);
  }
}

// A sequence for a request: a new one, or what is kept of one that began alike.
Sequence& Engine::begin(Work& work) {
  const Request& request = work.request;
  if (request.depths.empty())
    if (const auto found = prefixes_.find(request.prompt, work.kind()))
      if (Sequence* sequence = forked(*found->first, found->second)) {
        work.fed = work.reused = sequence->length;
        return *sequence;
      }
  work.reused = 0;  // whatever it found before it was sent back
  return core_.open(work.limit, work.threshold, work.policy, request.state_seed);
}

// The first positions of a kept sequence; null where there are no states for those that lag.
Sequence* Engine::forked(const Sequence& kept, std::int64_t length) {
  const std::int64_t lag = std::max<std::int64_t>(length - kept.complete(), 0);
  do {
    try {
      return &core_.fork(kept, length);
    } catch (const OutOfStates&) {
    }
  } while (prefixes_.drop_lagging(lag, &kept));
  return nullptr;
}

void Engine::enter() {
  std::int64_t left = core_.graphs->most_rows, free = core_.states->free();
  for (const auto& work : running_) free -= work->reserved();
  Works order = running_;  // a token before a prompt
  std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a->left() < b->left(); });
  Works entering;
  std::vector<Chunk> chunks;
  for (const auto& work : order) {
    if (!left || !work->left() || work->sequence->job) continue;
    const std::int64_t reserved = work->reserved();
    chunks.push_back(chunk(*work, std::min({chunk_, left, core_.states->lines()}), free));
    entering.push_back(work);
    const auto count = static_cast<std::int64_t>(chunks.back().ids.size());
    left -= count;
    if (!reserved) free -= std::max(work->reserved(), count);
  }
  if (!chunks.empty() && !entered(entering, chunks) && !traffic().looping) make_room();
}

// Enters as many as there is room for; whether any was.
bool Engine::entered(Works& entering, std::vector<Chunk>& chunks) {
  const auto rows = [&] {
    return std::accumulate(chunks.begin(), chunks.end(), std::int64_t{0}, [](std::int64_t sum, const Chunk& each) {
      return sum + static_cast<std::int64_t>(each.ids.size());
    });
  };
  while (!chunks.empty()) {
    try {
      timed(kEnter, [&] {
        core_.enter(chunks);
        return Calls{1, rows()};
      });
    } catch (const OutOfStates&) {
      Sequence& sequence = *chunks.back().sequence;
      if (prefixes_.drop_lagging(sequence.lag())) continue;
      chunks.pop_back();
      Work& work = *entering[chunks.size()];
      if (const std::int64_t room = core_.states->free() - rows(); room > 0)  // for a part of the longest
        chunks.push_back(chunk(work, room, 0));
      else if (!work.round || work.round->drafts.empty())
        core_.repay(sequence, 1);  // it waits; what it lags runs meanwhile, which frees states
      continue;
    } catch (const OutOfPages&) {
      if (!prefixes_.drop()) chunks.pop_back();  // the longest waits
      continue;
    }
    for (std::size_t i = 0; i < chunks.size(); ++i) {
      entering[i]->fed += static_cast<std::int64_t>(chunks[i].ids.size());
      const auto& drafts = entering[i]->round;
      if (drafts && !drafts->drafts.empty() && !chunks[i].depths) core_.resume(*chunks[i].sequence, drafts->first);
    }
    return true;
  }
  return false;
}

// What enters next of a request: at most so many tokens; where a round begins, it has so many states.
Chunk Engine::chunk(Work& work, std::int64_t most, std::int64_t free) {
  if (work.decoding() && !work.round) {
    work.cap = cap(work);
    work.round = plan(work, free);
  }
  Chunk chunk{work.sequence, work.next(most)};
  chunk.answers = static_cast<std::int64_t>(chunk.ids.size()) == work.left();
  if (work.round && static_cast<std::int64_t>(work.round->drafts.size()) < work.round->length) chunk.depths = work.round->depth;
  set_caps(work, chunk);
  return chunk;
}

// -- ends ----------------------------------------------------------------------------------------------------------------

void Engine::fail(const std::shared_ptr<Work>& work, const ResultError& error) {
  work->error = error.what();
  end(work, kError);
}

void Engine::end(const std::shared_ptr<Work>& work, const char* reason) {
  work->finished = reason;
  if (!work->sequence) {
    waiting_.erase(find(waiting_, work.get()));
    return;
  }
  stop(work, reason == kEos || reason == kStop || reason == kLength);
  full_ = false;
}

void Engine::stop(const std::shared_ptr<Work>& work, bool may_keep) {
  Sequence& sequence = *work->sequence;
  if (!may_keep || sequence.capped || !keep(*work, sequence)) core_.close(sequence);
  work->sequence = nullptr, work->fed = 0;
  work->round.reset();
  running_.erase(find(running_, work.get()));
  if (const auto found = find(through_, work.get()); found != through_.end()) through_.erase(found);
}

// Keeps an ended sequence for those that begin alike; whether it was.
bool Engine::keep(const Work& work, Sequence& sequence) {
  Ids known = work.request.prompt;
  known.insert(known.end(), work.tokens.begin(), work.tokens.end() - 1);  // the last token never entered
  core_.truncate(sequence, static_cast<std::int64_t>(known.size()));
  return prefixes_.keep(sequence, known, work.kind());
}

// Nobody can go on for want of memory: what is kept of an ended request goes, or, where nothing is, the request that was
// admitted last waits until one ends, and will be computed anew.
void Engine::make_room() {
  if (prefixes_.drop()) return;
  const auto last = running_.back();  // not the only one, which fits: see `submit`
  stop(last);
  waiting_.push_front(last);
  full_ = true;
}

}  // namespace mythos::engine
