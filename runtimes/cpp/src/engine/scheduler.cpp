#include "engine/scheduler.hpp"

#include <algorithm>
#include <utility>

namespace mythos::engine {

std::optional<Span> due(Sequence& sequence, const States& states) {
  Job& job = *sequence.job;
  for (; job.depth < job.stop; ++job.depth) {
    std::int64_t last = job.last;
    if (!job.whole)
      while (last >= job.first && states.halted(sequence.line(last))) --last;
    if (last < job.first) return std::nullopt;
    const std::int64_t filled = sequence.filled[static_cast<std::size_t>(job.depth)];
    if (filled <= last) return Span{&sequence, job.depth, filled, last};
  }
  return std::nullopt;
}

Spans going(const Span& span, const States& states) {
  Spans spans;
  for (std::int64_t position = span.first; position <= span.last; ++position) {
    if (states.halted(span.sequence->line(position))) continue;
    if (spans.empty() || spans.back().last + 1 < position) spans.push_back({span.sequence, span.depth, position, position});
    spans.back().last = position;
  }
  return spans;
}

Spans Scheduler::plan(const Spans& due) {
  ++tick_;
  for (const Span& span : due) served_.emplace(span.sequence, tick_ - 1);
  Spans waiting = due;
  std::stable_sort(waiting.begin(), waiting.end(), [&](const Span& a, const Span& b) {
    return std::pair(served_[a.sequence], a.rows()) < std::pair(served_[b.sequence], b.rows());
  });
  std::int64_t left = rows;
  Spans planned;
  for (const Span& span : waiting) {
    if (left == 0) break;
    planned.push_back({span.sequence, span.depth, span.first, std::min(span.last, span.first + left - 1)});
    left -= planned.back().rows();
    served_[span.sequence] = tick_;
  }
  return planned;
}

}  // namespace mythos::engine
