#include "engine/core.hpp"

#include <algorithm>

#include "noise.hpp"

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

}  // namespace

Core::Core(std::unique_ptr<Graphs> graphs, Memory memory, std::optional<std::int64_t> max_lag)
    : graphs(std::move(graphs)), around(std::move(memory.around)), loop(std::move(memory.loop)),
      states(std::move(memory.states)), scheduler(this->graphs->most_rows), max_lag(max_lag),
      trailing(has_trailing_layers(*this->graphs->spec)) {}

// -- sequences -----------------------------------------------------------------------------------------------------------

Sequence& Core::open(std::int64_t limit, float threshold, bool whole, std::uint64_t state_seed) {
  sequences.push_back(std::make_unique<Sequence>(limit, threshold, whole, state_seed));
  return *sequences.back();
}

void Core::close(Sequence& sequence) {
  cut(sequence, 0);
  scheduler.forget(&sequence);
  sequences.erase(std::find_if(sequences.begin(), sequences.end(), [&](const auto& each) { return each.get() == &sequence; }));
}

Sequence& Core::fork(const Sequence& sequence) {
  Lines lines = states->copy(sequence.lines);
  Sequence& twin = open(sequence.limit, sequence.threshold, sequence.whole, sequence.state_seed);
  twin.length = sequence.length, twin.answered = sequence.answered, twin.filled = sequence.filled;
  twin.job = sequence.job;
  twin.lines = std::move(lines);
  if (around) twin.around = around->fork(sequence.around);
  for (std::size_t depth = 0; depth < sequence.loop.size(); ++depth) twin.loop[depth] = loop->fork(sequence.loop[depth]);
  return twin;
}

void Core::cut(Sequence& sequence, std::int64_t length) {
  sequence.job.reset();
  const std::int64_t gone = std::max<std::int64_t>(sequence.length - length, 0);
  const std::int64_t keep = std::max<std::int64_t>(static_cast<std::int64_t>(sequence.lines.size()) - gone, 0);
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
  if (count > states->free()) throw OutOfPages();
  if (around)
    for (const Span& span : spans) around->extend(span.sequence->around, span.first, span.last);
  const float* encoded = graphs->enter(ids, spans, around_of(spans));
  const std::vector<float> drawn = initial(spans);
  const Lines lines = states->begin(ids, encoded, drawn.data());
  auto line = lines.begin();
  for (std::size_t i = 0; i < chunks.size(); ++i) {
    Sequence& sequence = *spans[i].sequence;
    sequence.lines.insert(sequence.lines.end(), line, line + spans[i].rows());
    line += spans[i].rows();
    sequence.length = spans[i].last + 1;
    if (chunks[i].answers || trailing) sequence.job = Job{spans[i].first, spans[i].last, 0, sequence.whole, true};
  }
}

// The state before the first loop of new rows [r, S], where the model draws it.
std::vector<float> Core::initial(const Spans& spans) const {
  const StateTensor* tensor = spec().initial();
  std::vector<float> all;
  for (const Span& span : spans) {
    if (!tensor) break;
    std::vector<std::int64_t> positions;
    for (std::int64_t position = span.first; position <= span.last; ++position) positions.push_back(position);
    const std::vector<float> drawn = initial_state(*tensor, positions, span.sequence->state_seed);
    all.insert(all.end(), drawn.begin(), drawn.end());
  }
  return all;
}

std::vector<Sequence*> Core::step() {
  Spans waiting;
  std::vector<Sequence*> through;
  for (const auto& sequence : sequences) {
    if (!sequence->job) continue;
    if (const auto span = due(*sequence, *states))
      waiting.push_back(*span);
    else
      through.push_back(sequence.get());
  }
  if (!waiting.empty()) {
    run(with_pages(scheduler.plan(waiting)));
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

std::vector<Answer> Core::leave(const std::vector<Sequence*>& sequences, bool every) {
  Spans spans;
  std::vector<std::int64_t> pick;
  std::int64_t rows = 0;
  for (Sequence* sequence : sequences) {
    const Job& job = *sequence->job;
    spans.push_back({sequence, 0, every || trailing ? job.first : job.last, job.last});
    for (std::int64_t row = every ? 0 : spans.back().rows() - 1; row < spans.back().rows(); ++row) pick.push_back(rows + row);
    rows += spans.back().rows();
  }
  const Lines lines = lines_of(spans);
  const float* logits = graphs->leave(*states, lines, pick, spans, around_of(spans));
  std::vector<Answer> answers;
  auto row = pick.begin();
  for (const Span& span : spans) {
    Answer answer;
    const std::int64_t count = every ? span.rows() : 1;
    answer.logits.assign(logits, logits + count * spec().vocab_size);
    logits += count * spec().vocab_size;
    for (std::int64_t i = 0; i < count; ++i) answer.depth.push_back(states->depth(lines[static_cast<std::size_t>(*row++)]));
    answers.push_back(std::move(answer));
  }
  for (const Span& span : spans) {
    span.sequence->answered = span.last + 1;
    span.sequence->job.reset();
    release(*span.sequence);
    repay(*span.sequence);
  }
  return answers;
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

void Core::run(const Spans& spans) {
  const Lines lines = lines_of(spans);
  Tables tables;
  for (const Span& span : spans) tables.push_back(&span.sequence->loop[static_cast<std::size_t>(span.depth)]);
  ++steps, rows += static_cast<std::int64_t>(lines.size());
  late += std::count_if(lines.begin(), lines.end(), [&](std::int64_t line) { return states->halted(line); });
  graphs->step(*states, lines, spans, tables);
  for (const Span& span : spans) span.sequence->filled[static_cast<std::size_t>(span.depth)] = span.last + 1;
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

void Core::repay(Sequence& sequence) {
  if (max_lag && sequence.lag() >= *max_lag) sequence.job = Job{sequence.complete(), sequence.length - 1, 0, true, false};
}

}  // namespace mythos::engine
