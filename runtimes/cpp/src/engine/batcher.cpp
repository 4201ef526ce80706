#include "engine/batcher.hpp"

#include <algorithm>
#include <chrono>
#include <numeric>

#include "batch.hpp"
#include "engine/depth.hpp"
#include "row_ports.hpp"

namespace mythos::engine {

Batcher::Batcher(Core& core, Queues& queues, Prefixes& prefixes, Speed& speed, std::int64_t chunk, Speculation* speculation)
    : core_(core), queues_(queues), prefixes_(prefixes), speed_(speed),
      chunk_(std::min(integer(chunk, "chunk", 1), core.graphs->most_rows)), speculation_(speculation) {}

void Batcher::enter() {
  std::int64_t left = core_.graphs->most_rows, free = core_.states->free();
  for (const auto& work : queues_.running) free -= work->reserved();
  Works order = queues_.running;  // a token before a prompt
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
  if (!chunks.empty() && !entered(entering, chunks) && !queues_.traffic().looping) queues_.make_room();
}

// Enters as many as there is room for; whether any was.
bool Batcher::entered(Works& entering, std::vector<Chunk>& chunks) {
  const auto rows = [&] {
    return std::accumulate(chunks.begin(), chunks.end(), std::int64_t{0}, [](std::int64_t sum, const Chunk& each) {
      return sum + static_cast<std::int64_t>(each.ids.size());
    });
  };
  while (!chunks.empty()) {
    const auto started = std::chrono::steady_clock::now();
    try {
      core_.enter(chunks);
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
    speed_.saw(kEnter, rows(), started);
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
Chunk Batcher::chunk(Work& work, std::int64_t most, std::int64_t free) {
  if (work.decoding() && !work.round) {
    const auto sharing = static_cast<std::int64_t>(queues_.running.size());
    work.cap = budgeted_cap(work, speed_, sharing);
    const std::int64_t room = std::min(core_.graphs->most_rows, free);  // a round that has begun does not repay
    work.round = plan_round(work, speculation_, sharing, std::max<std::int64_t>(room - 1, 0));
  }
  Chunk chunk{work.sequence, work.next(most)};
  chunk.answers = static_cast<std::int64_t>(chunk.ids.size()) == work.left();
  if (work.round && static_cast<std::int64_t>(work.round->drafts.size()) < work.round->length) chunk.depths = work.round->depth;
  set_caps(work, chunk);
  return chunk;
}

}  // namespace mythos::engine
