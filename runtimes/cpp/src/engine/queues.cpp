#include "engine/queues.hpp"

#include <algorithm>

#include "batch.hpp"

namespace mythos::engine {
namespace {

template <typename Several>
auto found(Several& several, const Running* running) {
  return std::find_if(several.begin(), several.end(), [&](const auto& each) { return each.get() == running; });
}

}  // namespace

Queues::Queues(Core& core, Prefixes& prefixes, std::int64_t most_running)
    : core_(core), prefixes_(prefixes), most_running_(integer(most_running, "most_running", 1)) {}

Traffic Queues::traffic() const {
  const auto looping =
      std::count_if(running.begin(), running.end(), [](const auto& each) { return each->sequence->job.has_value(); });
  return {static_cast<std::int64_t>(running.size()), looping, static_cast<std::int64_t>(through.size())};
}

std::shared_ptr<Work> Queues::find(const Running* of) const {
  if (const auto work = found(running, of); work != running.end()) return *work;
  if (const auto work = found(waiting, of); work != waiting.end()) return *work;
  return nullptr;
}

void Queues::passed(const Sequence* sequence) {
  const auto work = *std::find_if(running.begin(), running.end(), [&](const auto& each) { return each->sequence == sequence; });
  if (found(through, work.get()) == through.end()) through.push_back(work);
}

// -- admission -----------------------------------------------------------------------------------------------------------

void Queues::admit() {
  // Who was sent back would take the pages that it gave again, and the others would never be done.
  while (!waiting.empty() && static_cast<std::int64_t>(running.size()) < most_running_ && !full_) {
    const auto work = waiting.front();
    work->sequence = &begin(*work);  // where that fails it waits still
    waiting.pop_front();
    running.push_back(work);
  }
}

// A sequence for a request: a new one, or what is kept of one that began alike.
Sequence& Queues::begin(Work& work) {
  const Request& request = work.request;
  if (request.depths.empty())
    if (const auto kept = prefixes_.find(request.prompt, work.kind()))
      if (Sequence* sequence = forked(*kept->first, kept->second)) {
        work.fed = work.reused = sequence->length;
        return *sequence;
      }
  work.reused = 0;  // whatever it found before it was sent back
  return core_.open(work.limit, work.threshold, work.policy, request.state_seed);
}

// The first positions of a kept sequence; null where there are no states for those that lag.
Sequence* Queues::forked(const Sequence& kept, std::int64_t length) {
  const std::int64_t lag = std::max<std::int64_t>(length - kept.complete(), 0);
  do {
    try {
      return &core_.fork(kept, length);
    } catch (const OutOfStates&) {
    }
  } while (prefixes_.drop_lagging(lag, &kept));
  return nullptr;
}

// -- ends ----------------------------------------------------------------------------------------------------------------

void Queues::fail(const std::shared_ptr<Work>& work, const ResultError& error) {
  work->error = error.what();
  end(work, kError);
}

void Queues::end(const std::shared_ptr<Work>& work, const char* reason) {
  work->finished = reason;
  if (!work->sequence) {
    waiting.erase(found(waiting, work.get()));
    return;
  }
  stop(work, reason == kEos || reason == kStop || reason == kLength);
  full_ = false;
}

void Queues::stop(const std::shared_ptr<Work>& work, bool may_keep) {
  Sequence& sequence = *work->sequence;
  const auto part = [&](bool kept) {
    if (!kept) core_.close(sequence);
    work->sequence = nullptr, work->fed = 0;
    work->round.reset(), work->cap.reset();
    running.erase(found(running, work.get()));
    if (const auto at = found(through, work.get()); at != through.end()) through.erase(at);
  };
  try {
    part(may_keep && !sequence.capped && keep(*work, sequence));
  } catch (...) {
    if (work->sequence) part(false);
    throw;
  }
}

// Keeps an ended sequence for those that begin alike; whether it was.
bool Queues::keep(const Work& work, Sequence& sequence) {
  Ids known = work.request.prompt;
  known.insert(known.end(), work.tokens.begin(), work.tokens.end() - 1);  // the last token never entered
  core_.truncate(sequence, static_cast<std::int64_t>(known.size()));
  return prefixes_.keep(sequence, known, work.kind());
}

// -- the way back --------------------------------------------------------------------------------------------------------

void Queues::make_room() {
  if (prefixes_.drop()) return;
  send_back({running.back()});  // not the only one, which fits: see `Engine::submit`
  full_ = true;
}

void Queues::send_back(const Works& several) {
  for (auto work = several.rbegin(); work != several.rend(); ++work) {
    stop(*work);
    waiting.push_front(*work);
  }
  full_ = full_ && !running.empty();  // where nobody runs, nobody will end
}

}  // namespace mythos::engine
