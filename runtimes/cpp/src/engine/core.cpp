#include "engine/core.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "noise.hpp"
#include "row_ports.hpp"

namespace mythos::engine {
namespace {

bool has_trailing_layers(const LoopSpec& spec) {
  return std::any_of(spec.caches.begin(), spec.caches.end(),
                     [](const CacheGroup& group) { return !group.per_loop && group.slots > group.before; });
}

Tables around_of(const Spans& spans) {
  Tables tables;
  for (const Span& span : spans) tables.push_back(&span.sequence->around);
  return tables;
}

// States of a sequence that belong to its first `length` positions.
std::int64_t lines_within(const Sequence& sequence, std::int64_t length) {
  const std::int64_t gone = std::max<std::int64_t>(sequence.length - length, 0);
  return std::max<std::int64_t>(static_cast<std::int64_t>(sequence.lines.size()) - gone, 0);
}

}  // namespace

Core::Core(std::unique_ptr<Graphs> graphs, Memory memory, std::optional<std::int64_t> max_lag)
    : graphs(std::move(graphs)), memory(std::move(memory)), around(this->memory.around.get()),
      loop(this->memory.loop.get()), states(this->memory.states.get()), scheduler(this->graphs->most_rows),
      max_lag(max_lag), trailing(has_trailing_layers(*this->graphs->spec)) {}

void Core::reserve(const Room& room) {
  if ((around && room.around > around->pages()) || room.loop > loop->pages() || room.lines > states->lines()) {
    try {
      memory.grow(room);
    } catch (...) {
      graphs->bind(memory);  // a part of it may have grown, and moved
      throw;
    }
    graphs->bind(memory);
  }
}

// -- sequences -----------------------------------------------------------------------------------------------------------

Sequence& Core::open(std::int64_t limit, float threshold, Policy policy, std::uint64_t state_seed) {
  sequences.push_back(std::make_unique<Sequence>(limit, threshold, policy, state_seed, opened++));
  return *sequences.back();
}

std::optional<std::int64_t> Core::most_states(Policy policy, std::int64_t chunk) const {
  if (policy == Policy::full) return chunk;
  return trailing && max_lag ? std::optional(saturated_sum(*max_lag, chunk)) : std::nullopt;
}

void Core::close(Sequence& sequence) {
  cut(sequence, 0);
  scheduler.forget(&sequence);
  sequences.erase(std::find_if(sequences.begin(), sequences.end(), [&](const auto& each) { return each.get() == &sequence; }));
}

Sequence& Core::fork(const Sequence& sequence, std::optional<std::int64_t> first) {
  const std::int64_t length = std::min(first.value_or(sequence.length), sequence.length);
  Lines lines = states->copy(Lines(sequence.lines.begin(), sequence.lines.begin() + lines_within(sequence, length)));
  Sequence& twin = open(sequence.limit, sequence.threshold, sequence.policy, sequence.state_seed);
  twin.length = length, twin.answered = std::min(sequence.answered, length);
  for (std::size_t depth = 0; depth < sequence.loop.size(); ++depth) {
    twin.filled[depth] = std::min(sequence.filled[depth], length);
    twin.loop[depth] = loop->fork(sequence.loop[depth], length);
  }
  if (around) twin.around = around->fork(sequence.around, length);
  if (length == sequence.length) twin.job = sequence.job;
  twin.capped = sequence.capped;
  twin.lines = std::move(lines);
  return twin;
}

void Core::cut(Sequence& sequence, std::int64_t length) {
  sequence.job.reset();
  const std::int64_t keep = lines_within(sequence, length);
  states->end(sequence.lines.begin() + keep, sequence.lines.end());
  sequence.lines.resize(static_cast<std::size_t>(keep));
  sequence.length = std::min(sequence.length, length);
  sequence.answered = std::min(sequence.answered, length);
  for (std::int64_t& filled : sequence.filled) filled = std::min(filled, length);
  if (around) around->truncate(sequence.around, length);
  for (Table& table : sequence.loop) loop->truncate(table, length);
}

// -- the three graphs ----------------------------------------------------------------------------------------------------

void Core::enter(const std::vector<Chunk>& chunks) {
  Spans spans;
  std::vector<std::int64_t> ids;
  for (const Chunk& chunk : chunks) {
    const std::int64_t first = chunk.sequence->length;
    spans.push_back({chunk.sequence, 0, first, first + static_cast<std::int64_t>(chunk.ids.size()) - 1});
    ids.insert(ids.end(), chunk.ids.begin(), chunk.ids.end());
  }
  const auto count = static_cast<std::int64_t>(ids.size());
  if (count > states->free()) throw OutOfStates();
  if (around)
    for (const Span& span : spans) around->extend(span.sequence->around, span.first, span.last);
  const std::vector<float> drawn = initial(chunks);
  const Lines lines = graphs->enter(*states, ids, drawn.data(), spans, around_of(spans));
  auto line = lines.begin();
  for (std::size_t i = 0; i < chunks.size(); ++i) {
    const Chunk& chunk = chunks[i];
    Sequence& sequence = *chunk.sequence;
    for (std::size_t row = 0; row < chunk.ids.size(); ++row, ++line) {
      const auto at = static_cast<std::size_t>(*line);
      sequence.lines.push_back(*line);
      states->threshold[at] = !chunk.forced.empty() && chunk.forced[row] ? std::nanf("") : sequence.threshold;
      states->cap[at] = chunk.caps.empty() ? static_cast<std::int32_t>(sequence.limit) : chunk.caps[row];
    }
    sequence.length = spans[i].last + 1;
    sequence.capped = sequence.capped || !chunk.caps.empty();
    const bool answers = chunk.answers || trailing, whole = sequence.policy == Policy::full;
    if (answers || whole)
      sequence.job = Job{spans[i].first, spans[i].last, chunk.depths.value_or(sequence.limit), 0, whole, answers};
    else if (!sequence.limit)
      release(sequence);  // no loop will ask for them
  }
}

// The state before the first loop of new rows [r, S], where the model draws it.
std::vector<float> Core::initial(const std::vector<Chunk>& chunks) const {
  const StateTensor* tensor = spec().initial();
  std::vector<float> all;
  for (const Chunk& chunk : chunks) {
    if (!tensor) break;
    if (!chunk.initial.empty()) {
      all.insert(all.end(), chunk.initial.begin(), chunk.initial.end());
      continue;
    }
    std::vector<std::int64_t> positions(chunk.ids.size());
    std::iota(positions.begin(), positions.end(), chunk.sequence->length);
    const std::vector<float> drawn = initial_state(*tensor, positions, chunk.sequence->state_seed);
    all.insert(all.end(), drawn.begin(), drawn.end());
  }
  return all;
}

std::vector<Sequence*> Core::step(const std::vector<Sequence*>& sequences, const MostLoops& most) {
  Spans waiting;
  std::vector<Sequence*> through;
  for (Sequence* sequence : sequences) {
    if (!sequence->job) continue;
    if (const auto span = due(*sequence, *states))
      waiting.push_back(*span);
    else
      through.push_back(sequence);
  }
  if (!waiting.empty()) {
    const Spans planned = with_pages(scheduler.plan(waiting));
    compute(planned, together(planned, waiting, most));
    for (const Span& span : waiting)
      if (!due(*span.sequence, *states)) through.push_back(span.sequence);
  }
  std::vector<Sequence*> answering;
  for (Sequence* sequence : through) {
    if (sequence->job->answers) {
      answering.push_back(sequence);
    } else {
      sequence->job.reset();
      release(*sequence);
    }
  }
  return answering;
}

void Core::run(const std::vector<Sequence*>& sequences) {
  const auto going = [&] {
    return std::count_if(sequences.begin(), sequences.end(), [](const Sequence* each) { return each->job.has_value(); });
  };
  while (going() > static_cast<std::ptrdiff_t>(step(sequences).size())) continue;
}

std::vector<Answer> Core::leave(const std::vector<Leaving>& leaving) {
  Spans spans;
  for (const Leaving& each : leaving) {
    const Job& job = *each.sequence->job;
    const bool whole = each.every || (trailing && !each.early);
    spans.push_back({each.sequence, 0, whole ? job.first : job.last, job.last});
  }
  std::vector<Answer> found = answers(leaving, spans);
  for (std::size_t i = 0; i < leaving.size(); ++i) {
    Sequence& sequence = *leaving[i].sequence;
    sequence.job.reset();
    if (leaving[i].early) continue;
    sequence.answered = spans[i].last + 1;
    release(sequence);
  }
  return found;
}

void Core::resume(Sequence& sequence, std::int64_t first) {
  sequence.job = Job{first, sequence.length - 1, sequence.limit, 0, sequence.policy == Policy::full, true};
}

std::vector<Answer> Core::answers(const std::vector<Leaving>& leaving, const Spans& spans) {
  const Lines lines = lines_of(spans);
  std::vector<std::int64_t> pick;
  std::vector<bool> early;
  std::size_t at = 0;
  for (std::size_t i = 0; i < leaving.size(); ++i) {
    const auto rows = static_cast<std::size_t>(spans[i].rows());
    for (std::size_t row = leaving[i].every ? 0 : rows - 1; row < rows; ++row) pick.push_back(static_cast<std::int64_t>(at + row));
    early.insert(early.end(), rows, leaving[i].early);
    at += rows;
  }
  const float* logits = graphs->leave(*states, lines, early, pick, spans, around_of(spans));
  std::vector<Answer> found;
  auto row = pick.begin();
  for (std::size_t i = 0; i < leaving.size(); ++i) {
    Answer each;
    const std::int64_t count = leaving[i].every ? spans[i].rows() : 1;
    each.logits.assign(logits, logits + count * spec().vocab_size);
    logits += count * spec().vocab_size;
    for (std::int64_t n = 0; n < count; ++n) each.depth.push_back(states->depth(lines[static_cast<std::size_t>(*row++)]));
    found.push_back(std::move(each));
  }
  return found;
}

// The spans that there are pages for, which they get.
Spans Core::with_pages(const Spans& spans) {
  Spans ready;
  for (const Span& span : spans) try {
      loop->extend(span.sequence->loop[static_cast<std::size_t>(span.depth)], span.first, span.last);
      ready.push_back(span);
    } catch (const OutOfPages&) {  // it waits
    }
  if (ready.empty()) throw OutOfPages();
  return ready;
}

// For how many loops these spans of those that wait stay as they are, if none of their last rows halts: until an earlier
// position is due, too, or a job ends, or others wait.
std::int64_t Core::together(const Spans& planned, const Spans& waiting, const MostLoops& most_loops) const {
  if (graphs->most_loops == 1) return 1;
  const auto rows_of = [](const Spans& spans) {
    return std::accumulate(spans.begin(), spans.end(), std::int64_t{0},
                           [](std::int64_t sum, const Span& span) { return sum + span.rows(); });
  };
  const std::int64_t rows = rows_of(planned);
  if (rows < rows_of(waiting)) return 1;
  std::int64_t most = std::min(most_loops(rows), graphs->most_loops);
  for (const Span& span : planned) {
    const Sequence& sequence = *span.sequence;
    if (most == 1 || sequence.policy == Policy::share) return 1;
    const std::int64_t ends = std::min(span.depth + most, sequence.job->stop);
    std::int64_t ahead = span.depth + 1;
    while (ahead < ends && sequence.filled[static_cast<std::size_t>(ahead)] == span.first) ++ahead;
    most = ahead - span.depth;
  }
  return most;
}

// Gets pages for the loops behind the first, which has them; for how many loops, at most `loops`, there are. None is copied
// that another sequence holds too: a loop that does not run would have cost a page for good.
std::int64_t Core::deeper_pages(const Spans& spans, std::int64_t loops) {
  for (std::int64_t ahead = 1; ahead < loops; ++ahead)
    for (const Span& span : spans)
      if (!loop->extend_own(span.sequence->loop[static_cast<std::size_t>(span.depth + ahead)], span.first, span.last))
        return ahead;
  return loops;
}

// These rows, for so many loops, or until other ones are due, or as far as there are pages.
void Core::compute(const Spans& planned, std::int64_t loops) {
  Spans spans;
  for (const Span& span : planned) {
    const Spans left = span.sequence->policy == Policy::share ? shared(span) : Spans{span};
    spans.insert(spans.end(), left.begin(), left.end());
  }
  std::int64_t ran = 1;
  if (!spans.empty()) {
    LoopTables tables(static_cast<std::size_t>(deeper_pages(planned, loops)));
    for (std::size_t ahead = 0; ahead < tables.size(); ++ahead)
      for (const Span& span : spans)
        tables[ahead].push_back(&span.sequence->loop[static_cast<std::size_t>(span.depth) + ahead]);
    const Lines lines = lines_of(spans);
    ran = graphs->step(*states, lines, spans, tables);
    steps += ran, rows += ran * static_cast<std::int64_t>(lines.size());
    auto line = lines.begin();
    for (const Span& span : spans)
      for (std::int64_t row = 0; row < span.rows(); ++row)
        late += std::clamp<std::int64_t>(span.depth + ran - states->depth(*line++), 0, ran);
  }
  for (const Span& span : planned)
    for (std::int64_t ahead = 0; ahead < loops; ++ahead) {
      const auto depth = static_cast<std::size_t>(span.depth + ahead);
      std::int64_t& filled = span.sequence->filled[depth];
      if (ahead < ran)
        filled = span.last + 1;
      else
        loop->truncate(span.sequence->loop[depth], filled);
    }
}

// The spans that run of this one, where halted positions take their entries from the depth before.
Spans Core::shared(const Span& span) const {
  const Sequence& sequence = *span.sequence;
  for (std::int64_t position = span.first; position <= span.last; ++position) {
    if (!states->halted(sequence.line(position))) continue;
    const auto here = static_cast<std::size_t>(span.depth), block = static_cast<std::size_t>(position / kPage);
    loop->copy(sequence.loop[here][block], sequence.loop[here - 1][block], position % kPage, 1);
  }
  return going(span, *states);
}

// The states of positions that have run every depth and are answered are not needed any more.
void Core::release(Sequence& sequence) {
  const std::int64_t done = std::min(sequence.complete(), sequence.length) -
                            (sequence.length - static_cast<std::int64_t>(sequence.lines.size()));
  if (done <= 0) return;
  const auto end = sequence.lines.begin() + done;
  states->end(sequence.lines.begin(), end);
  sequence.lines.erase(sequence.lines.begin(), end);
}

void Core::repay(Sequence& sequence, std::optional<std::int64_t> at_least) {
  const std::optional<std::int64_t> most = at_least ? at_least : max_lag;
  if (most && sequence.lag() >= *most)
    sequence.job = Job{sequence.complete(), sequence.length - 1, sequence.limit, 0, true, false};
}

}  // namespace mythos::engine
