// Token by token: a request of the engine for each row, or, without row graphs, one forward pass of the whole batch per token
// (generate.py).
#include <algorithm>
#include <chrono>
#include <deque>

#include "batch.hpp"
#include "model.hpp"
#include "row_ports.hpp"
#include "sampling.hpp"
#include "text.hpp"

namespace mythos {
namespace {

using OnStep = std::function<bool(const Step&)>;

std::int64_t tokens_to_make(const GenerateOptions& options, const LoopSpec& spec, std::int64_t longest) {
  const std::int64_t room = spec.max_seq_len - longest + 1;  // the last token chosen is never fed back
  if (room < 1)
    throw CapacityError("a prompt of " + std::to_string(longest) + " tokens exceeds the " +
                        std::to_string(spec.max_seq_len) + " that this model takes");
  if (!options.max_new_tokens) return std::min(spec.max_output_tokens, room);
  const std::int64_t count = integer(*options.max_new_tokens, "max_new_tokens", 1);
  if (count > spec.max_output_tokens)
    throw RequestError("max_new_tokens is " + std::to_string(count) + ", but this model allows " +
                       std::to_string(spec.max_output_tokens));
  if (count > room)
    throw CapacityError(std::to_string(longest) + " prompt tokens and " + std::to_string(count) +
                        " new ones exceed the " + std::to_string(spec.max_seq_len) +
                        " that this model takes (max_seq_len); at most " + std::to_string(room) + " new ones fit");
  return count;
}

bool ends_with(const std::vector<std::int64_t>& ids, const std::vector<std::int64_t>& end) {
  return ids.size() >= end.size() && std::equal(end.rbegin(), end.rend(), ids.rbegin());
}

// -- through the engine --------------------------------------------------------------------------------------------------

// The requests of a batch, on a model that others use beside it.
class Batch {
 public:
  Batch(Model& model, const Rows& prompts, const GenerateOptions& options, const std::vector<std::int64_t>& eos, std::int64_t count)
      : engine_(Engine::of(model, settings(prompts, options))) {
    for (const auto& prompt : prompts) {
      Request request;
      request.prompt = prompt, request.max_new_tokens = count;
      request.max_loops = options.forward.max_loops, request.halt_threshold = options.forward.halt_threshold;
      if (!options.policy.empty()) request.policy = options.policy;
      request.sampling = options.sampling;
      request.eos = eos, request.stop = options.stop;
      request.row = running_.size(), request.state_seed = options.forward.state_seed;
      running_.push_back(engine_.submit(std::move(request)));
    }
    before_ = engine_.counts();
  }

  // Runs until every row that goes on has its next token; false where none does.
  bool next(Step& step) {
    const auto waits = [&](const auto& each) { return each->finished.empty() && each->tokens.size() == number_; };
    const auto started = std::chrono::steady_clock::now();
    while (std::any_of(running_.begin(), running_.end(), waits)) engine_.tick();
    step.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
    const EngineCounts now = engine_.counts();
    step.counts = {now.steps - before_.steps, now.rows - before_.rows, now.late - before_.late,
                   now.drafted - before_.drafted, now.accepted - before_.accepted};
    step.loops = 0;
    bool any = false;
    for (std::size_t row = 0; row < running_.size(); ++row) {
      const Running& each = *running_[row];
      const bool goes = each.tokens.size() > number_;
      if (each.finished == engine::kError) throw ResultError(each.error);
      any = any || goes;
      step.tokens[row] = goes ? each.tokens[number_] : -1;
      step.depth[row] = goes ? each.depth[number_] : 0;
      step.capped[row] = goes && each.capped[number_];
      step.loops = std::max<std::int64_t>(step.loops, step.depth[row]);
      if (each.tokens.size() <= number_ + 1) step.finished[row] = each.finished;
    }
    ++number_;
    return any;
  }

 private:
  static EngineOptions settings(const Rows& prompts, const GenerateOptions& options) {
    EngineOptions settings;
    settings.most_running = static_cast<std::int64_t>(prompts.size());
    settings.chunk = options.prefill_chunk, settings.budget = {options.loops_per_token, options.latency_ms};
    settings.speculate = options.speculate;
    return settings;
  }

  Engine engine_;
  std::vector<std::shared_ptr<const Running>> running_;
  std::size_t number_ = 0;  // of the step
  EngineCounts before_;     // what had been counted
};

void generate_with_rows(Batch& batch, std::size_t rows, const OnStep& on_step) {
  Step step;
  step.tokens.resize(rows), step.depth.resize(rows), step.capped.resize(rows), step.finished.resize(rows);
  while (batch.next(step) && on_step(step)) continue;
}

// -- without row graphs --------------------------------------------------------------------------------------------------

struct Prefilled {
  std::vector<float> logits;  // [rows, V], of every prompt's last token
  Step step;
};

Prefilled prefill(Model& model, const Rows& prompts, std::int64_t size, const ForwardOptions& options, Cache& cache,
                  std::size_t longest) {
  const auto vocab = static_cast<std::size_t>(model.spec().vocab_size);
  Prefilled result{std::vector<float>(prompts.size() * vocab), {}};
  result.step.depth.assign(prompts.size(), 0);
  const std::size_t chunk_size = std::min(static_cast<std::size_t>(size), longest);
  for (std::size_t start = 0; start < longest; start += chunk_size) {
    const std::size_t width = std::min(chunk_size, longest - start);
    Tokens chunk;
    chunk.batch = static_cast<std::int64_t>(prompts.size());
    chunk.tokens = static_cast<std::int64_t>(width);
    for (const auto& prompt : prompts)
      for (std::size_t t = start; t < start + width; ++t) {
        chunk.ids.push_back(t < prompt.size() ? prompt[t] : 0);
        chunk.valid.push_back(t < prompt.size());
      }
    const Output out = model.forward(chunk, options, &cache);
    for (std::size_t row = 0; row < prompts.size(); ++row) {
      if (prompts[row].size() <= start || prompts[row].size() > start + width) continue;
      const std::size_t last = prompts[row].size() - start - 1;
      const float* from = out.logit(static_cast<std::int64_t>(row), static_cast<std::int64_t>(last));
      std::copy(from, from + vocab, result.logits.begin() + static_cast<std::ptrdiff_t>(row * vocab));
      result.step.depth[row] = out.depth[row * width + last];
    }
    result.step.loops = std::max(result.step.loops, out.loops);
    result.step.seconds += out.seconds;
  }
  return result;
}

void generate_whole(Model& model, const Rows& prompts, const GenerateOptions& options, const std::vector<std::int64_t>& eos,
                    std::int64_t count, std::size_t longest, const OnStep& on_step) {
  const auto rows = prompts.size();
  const std::int64_t vocab_size = model.spec().vocab_size;
  Cache cache = model.new_cache(static_cast<std::int64_t>(rows), static_cast<std::int64_t>(longest) + count - 1,
                                options.forward.max_loops);
  std::vector<Sampler> samplers;
  for (std::size_t row = 0; row < rows; ++row) samplers.emplace_back(options.sampling, row, vocab_size, prompts[row]);

  Prefilled ready = prefill(model, prompts, options.prefill_chunk, options.forward, cache, longest);
  Step step = std::move(ready.step);
  std::vector<float> logits = std::move(ready.logits);
  step.finished.assign(rows, "");
  step.capped.assign(rows, false);
  Rows generated(rows);
  for (std::int64_t number = 1;; ++number) {
    step.tokens.assign(rows, -1);
    for (std::size_t row = 0; row < rows; ++row) {
      if (!step.finished[row].empty()) continue;
      const float* scores = logits.data() + row * static_cast<std::size_t>(vocab_size);
      const std::int64_t token = step.tokens[row] = samplers[row].choose(scores);
      generated[row].push_back(token);
      if (std::count(eos.begin(), eos.end(), token))
        step.finished[row] = "eos";
      else if (std::any_of(options.stop.begin(), options.stop.end(),
                           [&](const auto& sequence) { return ends_with(generated[row], sequence); }))
        step.finished[row] = "stop";
      else if (number == count)
        step.finished[row] = "length";
    }
    if (!on_step(step)) return;
    Tokens next{static_cast<std::int64_t>(rows), 1, std::vector<std::int64_t>(rows, 0), std::vector<std::uint8_t>(rows, 0)};
    bool going = false;
    for (std::size_t row = 0; row < rows; ++row)
      if (step.finished[row].empty()) {
        going = true;
        next.ids[row] = step.tokens[row];
        next.valid[row] = 1;
      }
    if (!going) return;
    Output out = model.forward(next, options.forward, &cache);
    logits = std::move(out.logits);
    step.depth = std::move(out.depth);
    step.loops = out.loops;
    step.seconds = out.seconds;
  }
}

}  // namespace

void Model::generate(const Rows& prompts, const GenerateOptions& options, const OnStep& on_step) {
  const LoopSpec& spec = this->spec();
  check_prompts(prompts, spec.vocab_size);
  check_sampling(options.sampling);
  integer(options.prefill_chunk, "prefill_chunk", 1);
  std::size_t longest = 0;
  for (const auto& prompt : prompts) longest = std::max(longest, prompt.size());
  const std::int64_t count = tokens_to_make(options, spec, static_cast<std::int64_t>(longest));
  const std::vector<std::int64_t> eos = options.eos.value_or(tokenizer_entry().eos);
  for (const std::int64_t end : eos) integer(end, "eos", 0);
  for (const auto& sequence : options.stop)
    for (const std::int64_t token : sequence) integer(token, "stop", 0);
  check_stops(options.stop);
  if (runs_rows()) {
    Batch batch(*this, prompts, options, eos, count);
    return generate_with_rows(batch, prompts.size(), on_step);
  }
  if (options.loops_per_token || options.latency_ms)
    throw RequestError("a budget needs the row graphs of a bundle, which this backend does not run");
  if (!options.policy.empty() && options.policy != "full")
    throw whole_model_only(options.policy, parts_->session->name);
  generate_whole(*this, prompts, options, eos, count, longest, on_step);
}

GenerationResult Model::generate_all(const Rows& prompts, const GenerateOptions& options) {
  GenerationResult result;
  generate(prompts, options, [&](const Step& step) {
    if (result.loops.empty()) {
      result.tokens.resize(step.tokens.size());
      result.depth.resize(step.tokens.size());
      result.prefill_seconds = step.seconds;
    } else {
      result.decode_seconds += step.seconds;
    }
    for (std::size_t row = 0; row < step.tokens.size(); ++row)
      if (step.tokens[row] >= 0) {
        result.tokens[row].push_back(step.tokens[row]);
        result.depth[row].push_back(step.depth[row]);
      }
    result.loops.push_back(step.loops);
    result.stop_reasons = step.finished;
    result.counts = step.counts;
    return true;
  });
  return result;
}

double GenerationResult::tokens_per_second() const {
  std::size_t decoded = 0;
  for (const auto& row : tokens) decoded += row.empty() ? 0 : row.size() - 1;
  return decode_seconds > 0 ? static_cast<double>(decoded) / decode_seconds : 0.0;
}

}  // namespace mythos
