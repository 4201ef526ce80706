// The C interface: every exception becomes a code and a text here.
#include "mythos_runtime.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "c_guard.hpp"
#include "session.hpp"

struct mythos_cache {
  mythos::Cache cache;
};

namespace {

using mythos::c::guarded, mythos::c::last, mythos::c::require;

std::unique_ptr<mythos::Tokenizer> tokenizer_of(const mythos_model* model) {
  auto tokenizer = model->model.tokenizer();
  require(tokenizer != nullptr, "this bundle has no tokenizer; pass ids, or export it with --tokenizer");
  return tokenizer;
}

template <typename Values, typename Element>
void copy_out(const Values& values, Element* out, std::size_t room, std::size_t* count) {
  if (out) std::copy_n(values.begin(), std::min(values.size(), room), out);
  *count = values.size();
}

mythos::ForwardOptions forward_options(const mythos_forward_options* given) {
  const mythos_forward_options chosen = given ? *given : mythos_default_forward_options();
  mythos::ForwardOptions options;
  if (chosen.max_loops != -1) options.max_loops = chosen.max_loops;
  if (!std::isnan(chosen.halt_threshold)) options.halt_threshold = chosen.halt_threshold;
  options.state_seed = chosen.state_seed;
  return options;
}

mythos::GenerateOptions generate_options(const mythos_generate_options* given) {
  const mythos_generate_options chosen = given ? *given : mythos_default_options();
  mythos::GenerateOptions options;
  if (chosen.max_new_tokens) options.max_new_tokens = chosen.max_new_tokens;
  options.sampling = {chosen.temperature, chosen.top_k, chosen.top_p, chosen.min_p, chosen.repetition_penalty, chosen.seed};
  if (chosen.eos) options.eos.emplace(chosen.eos, chosen.eos + chosen.eos_count);
  for (std::size_t i = 0; i < chosen.stop_count; ++i)
    options.stop.emplace_back(chosen.stop[i], chosen.stop[i] + chosen.stop_lengths[i]);
  options.forward = forward_options(&chosen.forward);
  if (chosen.policy) options.policy = chosen.policy;
  options.speculate = chosen.speculate;
  if (chosen.loops_per_token != 0) options.loops_per_token = chosen.loops_per_token;
  if (chosen.latency_ms != 0) options.latency_ms = chosen.latency_ms;
  return options;
}

// Hands every step on, with each row's text.
class Steps {
 public:
  Steps(const mythos::Model& model, std::size_t rows, mythos_on_step on_step, void* user)
      : on_step_(on_step), user_(user), texts_(rows), rows_(rows) {
    try {
      const auto tokenizer = model.tokenizer();
      for (std::size_t row = 0; tokenizer && row < rows; ++row) streams_.push_back(tokenizer->stream());
    } catch (const mythos::BackendMissing&) {
      // Ids were given and ids come out; mythos_encode and mythos_decode say what is missing.
    }
  }

  bool operator()(const mythos::Step& step) {
    for (std::size_t row = 0; row < rows_.size(); ++row) {
      const bool going = step.tokens[row] >= 0;
      texts_[row] = going && !streams_.empty() ? streams_[row]->feed(step.tokens[row]) : "";
      if (going && !streams_.empty() && !step.finished[row].empty()) texts_[row] += streams_[row]->finish();
      rows_[row] = {step.tokens[row], step.depth[row], texts_[row].data(), texts_[row].size(), step.capped[row],
                    step.finished[row].c_str()};
    }
    const mythos::EngineCounts& counts = step.counts;
    const mythos_step out{rows_.data(), rows_.size(), step.loops, step.seconds,
                          {counts.steps, counts.rows, counts.late, counts.drafted, counts.accepted}};
    return on_step_(&out, user_) == 0;
  }

 private:
  mythos_on_step on_step_;
  void* user_;
  std::vector<std::unique_ptr<mythos::Tokenizer::Stream>> streams_;
  std::vector<std::string> texts_;
  std::vector<mythos_row> rows_;
};

}  // namespace

extern "C" {

const char* mythos_version(void) { return mythos::version(); }

const char* mythos_last_error(void) { return last().text.c_str(); }

int mythos_onnxruntime_version(const char** version) {
  return guarded([&] {
    require(version, "mythos_onnxruntime_version needs a place for the version");
    *version = mythos::onnxruntime_version();
  });
}

const char* mythos_last_error_kind(void) { return last().kind; }

mythos_load_options mythos_default_load_options(void) { return {}; }

int mythos_load(const char* bundle, const char* backend, int threads, int verify, mythos_model** model) {
  mythos_load_options options = mythos_default_load_options();
  options.backend = backend, options.threads = threads, options.verify = options.verify_weights = verify;
  return mythos_load_with(bundle, &options, model);
}

int mythos_load_with(const char* bundle, const mythos_load_options* options, mythos_model** model) {
  return guarded([&] {
    require(bundle && model, "loading needs a bundle's folder and a place for the model");
    *model = new mythos_model{mythos::Model::load(bundle, mythos::c::load_options(options))};
  });
}

void mythos_free(mythos_model* model) { delete model; }

int64_t mythos_vocab_size(const mythos_model* model) { return model ? model->model.spec().vocab_size : 0; }

int64_t mythos_trained_loops(const mythos_model* model) { return model ? model->model.spec().trained_loops : 0; }

const char* mythos_description(const mythos_model* model) { return model ? model->model.description().c_str() : ""; }

const char* mythos_operators(const mythos_model* model) { return model ? model->model.operators().c_str() : ""; }

int mythos_eos(const mythos_model* model, int64_t* ids, size_t room, size_t* count) {
  return guarded([&] {
    require(model && count, "mythos_eos needs a model and a place for the number of ids");
    copy_out(model->model.tokenizer_entry().eos, ids, room, count);
  });
}

int mythos_encode(const mythos_model* model, const char* text, size_t bytes, int64_t* ids, size_t room, size_t* count) {
  return guarded([&] {
    require(model && text && count, "mythos_encode needs a model, a text and a place for the number of ids");
    copy_out(tokenizer_of(model)->encode({text, bytes}), ids, room, count);
  });
}

int mythos_encode_chat(const mythos_model* model, const char* const* roles, const char* const* contents, size_t messages,
                       int64_t* ids, size_t room, size_t* count) {
  return guarded([&] {
    require(model && roles && contents && count, "mythos_encode_chat needs a model, messages and a place for the number of ids");
    std::vector<mythos::ChatMessage> conversation;
    for (size_t i = 0; i < messages; ++i) {
      require(roles[i] && contents[i], "a message of mythos_encode_chat has no role or no content");
      conversation.push_back({roles[i], contents[i]});
    }
    copy_out(model->model.encode_chat(conversation), ids, room, count);
  });
}

int mythos_decode(const mythos_model* model, const int64_t* ids, size_t id_count, char* text, size_t room, size_t* count) {
  return guarded([&] {
    require(model && ids && count, "mythos_decode needs a model, ids and a place for the number of bytes");
    copy_out(tokenizer_of(model)->decode({ids, ids + id_count}), text, room, count);
  });
}

mythos_forward_options mythos_default_forward_options(void) { return {-1, std::nan(""), 0, nullptr}; }

mythos_generate_options mythos_default_options(void) {
  mythos_generate_options options{};
  options.top_p = options.repetition_penalty = 1;
  options.forward = mythos_default_forward_options();
  return options;
}

int mythos_generate(mythos_model* model, const int64_t* const* prompts, const size_t* lengths, size_t rows,
                    const mythos_generate_options* options, mythos_on_step on_step, void* user) {
  return guarded([&] {
    require(model && prompts && lengths && on_step, "mythos_generate needs a model, prompts, their lengths and a callback");
    std::vector<std::vector<std::int64_t>> ids;
    for (std::size_t row = 0; row < rows; ++row) ids.emplace_back(prompts[row], prompts[row] + lengths[row]);
    Steps steps(model->model, rows, on_step, user);
    model->model.generate(ids, generate_options(options), std::ref(steps));
  });
}

int mythos_cache_new(const mythos_model* model, int64_t batch, int64_t capacity, int64_t max_loops, const char* policy,
                     mythos_cache** cache) {
  return guarded([&] {
    require(model && cache, "mythos_cache_new needs a model and a place for the cache");
    std::optional<std::int64_t> loops;
    if (max_loops != -1) loops = max_loops;
    *cache = new mythos_cache{model->model.new_cache(batch, capacity, loops, policy ? policy : "")};
  });
}

int mythos_cache_fork(const mythos_cache* cache, const int64_t* rows, size_t count, mythos_cache** copy) {
  return guarded([&] {
    require(cache && copy && (!rows || count), "mythos_cache_fork needs a cache, at least one row and a place for the copy");
    std::vector<std::int64_t> chosen;
    if (rows) chosen.assign(rows, rows + count);
    *copy = new mythos_cache{cache->cache.fork(chosen)};
  });
}

int mythos_cache_truncate(mythos_cache* cache, const int64_t* lengths) {
  return guarded([&] {
    require(cache && lengths, "mythos_cache_truncate needs a cache and a length for every row");
    cache->cache.truncate({lengths, lengths + cache->cache.batch()});
  });
}

int mythos_cache_lengths(const mythos_cache* cache, int64_t* lengths, size_t room, size_t* batch) {
  return guarded([&] {
    require(cache && batch, "mythos_cache_lengths needs a cache and a place for the number of rows");
    copy_out(cache->cache.lengths(), lengths, room, batch);
  });
}

int mythos_cache_bytes(const mythos_cache* cache, size_t* bytes) {
  return guarded([&] {
    require(cache && bytes, "mythos_cache_bytes needs a cache and a place for the number");
    *bytes = cache->cache.nbytes();
  });
}

int mythos_cache_read(mythos_cache* cache, int64_t row, int64_t loop, void* lines, size_t room, size_t* bytes) {
  return guarded([&] {
    require(cache && bytes, "mythos_cache_read needs a cache and a place for the number of bytes");
    copy_out(cache->cache.read(row, loop), static_cast<char*>(lines), room, bytes);
  });
}

int mythos_cache_write(mythos_cache* cache, int64_t row, int64_t length, const void* around, size_t around_bytes,
                       const void* loops, size_t loops_bytes) {
  return guarded([&] {
    require(cache && (around || !around_bytes) && (loops || !loops_bytes), "mythos_cache_write needs a cache and lines");
    const auto bytes = [](const void* from, size_t count) {
      const char* begin = static_cast<const char*>(from);
      return std::vector<char>(begin, begin + count);
    };
    cache->cache.write(row, length, bytes(around, around_bytes), bytes(loops, loops_bytes));
  });
}

void mythos_cache_free(mythos_cache* cache) { delete cache; }

int mythos_forward(mythos_model* model, const int64_t* ids, const uint8_t* valid, int64_t batch, int64_t tokens,
                   const mythos_forward_options* options, mythos_cache* cache, float* logits, int32_t* depth,
                   int64_t* loops) {
  return guarded([&] {
    require(model && ids, "mythos_forward needs a model and ids");
    std::int64_t size = 0;
    require(batch > 0 && tokens > 0 && !__builtin_mul_overflow(batch, tokens, &size),
            "mythos_forward needs ids of [batch, tokens], both at least 1");
    mythos::Tokens chunk{batch, tokens, {ids, ids + size}, std::vector<std::uint8_t>(static_cast<std::size_t>(size), 1)};
    if (valid) chunk.valid.assign(valid, valid + size);
    mythos::ForwardOptions chosen = forward_options(options);
    if (options && options->initial_state) {
      const mythos::StateTensor* tensor = model->model.spec().initial();
      require(tensor, "this model has no initial_state: its first state is computed");
      const std::int64_t values = size * tensor->dims.back().size;
      chosen.initial_state.assign(options->initial_state, options->initial_state + values);
    }
    const mythos::Output out = model->model.forward(chunk, chosen, cache ? &cache->cache : nullptr);
    if (logits) std::copy(out.logits.begin(), out.logits.end(), logits);
    if (depth) std::copy(out.depth.begin(), out.depth.end(), depth);
    if (loops) *loops = out.loops;
  });
}

}  // extern "C"
