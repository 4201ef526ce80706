#include "engine/admission.hpp"

#include <algorithm>
#include <utility>

#include "batch.hpp"
#include "row_ports.hpp"
#include "text.hpp"

namespace mythos::engine {
namespace {

void check_room(std::int64_t positions, std::int64_t limit, const Core& core) {
  const std::int64_t blocks = (positions + kPage - 1) / kPage;
  if (positions > core.spec().max_seq_len)
    throw CapacityError("a request of " + std::to_string(positions) + " positions exceeds the " +
                        std::to_string(core.spec().max_seq_len) + " that this model takes");
  const bool fits = !core.around || blocks <= core.around->pages();
  if (!fits || blocks * limit > core.loop->pages())
    throw CapacityError("a request of " + std::to_string(positions) + " positions at " + std::to_string(limit) +
                        " loops does not fit the engine's memory by itself: give it more, or ask for less");
}

void check_halts(const std::string& what, const LoopSpec& spec) {
  if (!spec.exit.knob("halt_threshold"))
    throw RequestError(what + ": no position of this model halts by itself; give max_loops instead");
}

}  // namespace

std::shared_ptr<Work> admit(Request request, const Core& core, const Budget& usual) {
  const LoopSpec& spec = core.spec();
  check_prompts({request.prompt}, spec.vocab_size);
  check_sampling(request.sampling);
  integer(request.max_new_tokens, "max_new_tokens", 1);
  const std::int64_t limit = integer(request.max_loops.value_or(spec.trained_loops), "max_loops", 0, kMostLoops);
  policy_of(request.policy);
  check_stops(request.stop);
  check_room(saturated_sum(static_cast<std::int64_t>(request.prompt.size()), request.max_new_tokens - 1), limit, core);
  const float threshold = threshold_of(request.halt_threshold, spec, 0);
  const Budget budget = request.budget.value_or(usual);
  check_budget(budget, spec);
  if (!request.depths.empty()) check_halts("depths cannot be given", spec);
  for (const std::int64_t depth : request.depths) integer(depth, "depths", std::min<std::int64_t>(limit, 1), limit);
  auto work = std::make_shared<Work>(std::move(request), spec.vocab_size);
  work->limit = limit, work->threshold = threshold, work->budget = budget;
  return work;
}

void check_budget(const Budget& budget, const LoopSpec& spec) {
  if (is_set(budget)) check_halts("a budget cannot be kept", spec);
  if (budget.loops_per_token && number(*budget.loops_per_token, "loops_per_token") < 1)
    throw RequestError("loops_per_token should be at least 1, found " + py_repr(*budget.loops_per_token));
  if (budget.latency_ms && number(*budget.latency_ms, "latency_ms") <= 0)
    throw RequestError("latency_ms should be above 0, found " + py_repr(*budget.latency_ms));
}

}  // namespace mythos::engine
