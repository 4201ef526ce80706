// A loaded model: forward passes with and without a cache (model.py).
#include "model.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>

#include "batch.hpp"

namespace mythos {
namespace {

constexpr std::int64_t kMostLoops = (std::int64_t{1} << 31) - 1;

std::int64_t loops_of(const ForwardOptions& options, const RuntimeConfig& config, const Cache* cache) {
  if (!options.max_loops) return cache ? cache->max_loops() : config.max_loop_iters;
  const std::int64_t loops = *options.max_loops;
  if (loops < 0 || loops > kMostLoops)
    throw RequestError("max_loops should be an integer of at least 0 and at most " + std::to_string(kMostLoops) +
                       ", found " + std::to_string(loops));
  const std::string text = std::to_string(loops);
  if (cache && loops > cache->max_loops())
    throw RequestError("max_loops is " + text + ", but the cache holds " + std::to_string(cache->max_loops()) +
                       " loop depths; make one with new_cache(..., max_loops=" + text + ")");
  if (cache && options.policy == "full" && loops != cache->max_loops())
    throw RequestError("the cache policy full runs every depth of the cache (" + std::to_string(cache->max_loops()) +
                       "), but max_loops is " + text + "; make a cache with new_cache(..., max_loops=" + text +
                       "), or use policy='last'");
  return loops;
}

float threshold_of(const ForwardOptions& options, const RuntimeConfig& config) {
  const double value = number(options.halt_threshold.value_or(config.act_threshold), "halt_threshold");
  if (std::abs(value) > static_cast<double>(std::numeric_limits<float>::max()))
    throw RequestError("halt_threshold should be a finite float32, found " +
                       (options.halt_threshold ? py_repr(*options.halt_threshold) : "None"));
  return static_cast<float>(value);
}

}  // namespace

Model::Model(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Model::~Model() = default;
Model::Model(Model&&) noexcept = default;
Model& Model::operator=(Model&&) noexcept = default;

Model Model::load(const std::string& bundle, const LoadOptions& options) {
  check_options(options);
  auto parts = std::make_unique<Parts>();
  Bundle& b = parts->bundle;
  b.folder = plain_path(bundle);
  b.manifest = read_manifest(b.folder, options.verify);
  b.config = config_of(b.manifest, plain_path(b.folder + "/manifest.json"));
  parts->session = open_session(b, options);
  parts->ports = model_ports(b.config);
  return Model(std::move(parts));
}

const RuntimeConfig& Model::config() const { return parts_->bundle.config; }
const std::string& Model::description() const { return parts_->session->description; }

std::string Model::tokenizer_kind() const {
  const auto& entry = parts_->bundle.manifest.tokenizer;
  return entry ? entry->kind : "";
}

std::unique_ptr<Tokenizer> Model::tokenizer() const {
  const std::string kind = tokenizer_kind();
  if (kind.empty()) return nullptr;
  if (kind == "bytes") return make_byte_tokenizer(config().vocab_size);
  throw BackendMissing(parts_->bundle.manifest.tokenizer->file +
                       " needs the tokenizers library, which has no C++ interface: give ids, or run this bundle with "
                       "Python (pip install tokenizers)");
}

Cache Model::new_cache(std::int64_t batch, std::int64_t capacity, std::optional<std::int64_t> max_loops) const {
  return Cache(batch, capacity, config(), max_loops);
}

Output Model::forward(const Tokens& given, const ForwardOptions& options, Cache* cache) {
  const RuntimeConfig& config = this->config();
  const Tokens tokens = checked(given, config.vocab_size);
  if (options.policy != "full" && options.policy != "last")
    throw RequestError("there is no cache policy " + py_repr(from_utf8(options.policy), false) +
                       "; the policies are full, last");
  const std::int64_t loops = loops_of(options, config, cache);
  const float threshold = threshold_of(options, config);
  const bool early_exit = !cache || options.policy == "last";
  const std::vector<std::int64_t> counts = counts_of(tokens);
  const std::int64_t B = tokens.batch, T = tokens.tokens;
  std::int64_t P = 0, N = std::max<std::int64_t>(loops, 1);
  const void *past_layers = "", *past_loop = "";  // of no element without a cache, but never null
  std::vector<std::int64_t> past_lengths(static_cast<std::size_t>(B), 0);
  Cache::Buffers* buffers = cache ? cache->buffers_.get() : nullptr;
  if (!buffers) {
    const std::int64_t longest = *std::max_element(counts.begin(), counts.end());
    if (longest > config.max_seq_len)
      throw CapacityError("a sequence of " + std::to_string(longest) + " tokens exceeds the " +
                          std::to_string(config.max_seq_len) + " that this model takes (max_seq_len)");
  } else {
    if (buffers->batch != B)
      throw RequestError("ids have " + std::to_string(B) + " rows, the cache has " + std::to_string(buffers->batch));
    if (!(buffers->config == config))
      throw RequestError("the cache was made for another model; make one with this model's new_cache");
    buffers->check_room(counts);
    P = buffers->capacity, N = buffers->depths;
    past_layers = buffers->layers.get(), past_loop = buffers->loop.get();
    past_lengths = buffers->lengths;
  }
  const std::vector<std::int64_t> positions = positions_of(tokens, past_lengths);
  const std::string& kv = config.cache_dtype;
  const std::vector<Tensor> inputs{{"input_ids", "int64", {B, T}, tokens.ids.data(), {}},
                                   {"positions", "int64", {B, T}, positions.data(), {}},
                                   {"past_lengths", "int64", {B}, past_lengths.data(), {}},
                                   {"max_loops", "int64", {}, &loops, {}},
                                   {"halt_threshold", "float32", {}, &threshold, {}},
                                   {"early_exit", "bool", {}, &early_exit, {}},
                                   {"past_layers", kv, {config.layers, B, P, config.cache_width}, past_layers, {}},
                                   {"past_loop", kv, {N, B, P, config.cache_width}, past_loop, {}}};
  const auto started = std::chrono::steady_clock::now();
  const std::vector<Tensor> outputs = parts_->session->run(inputs);
  Output out;
  out.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();

  // Graph compilers have been seen to run a loop once too often, so the counter is not taken on trust.
  check_outputs(parts_->ports.outputs, outputs, {{"B", B}, {"T", T}, {"N", N}});
  const auto* depth = static_cast<const std::int32_t*>(outputs[1].data);
  out.depth.assign(depth, depth + B * T);
  std::memcpy(&out.loops, outputs[2].data, sizeof out.loops);
  const std::int64_t deepest = *std::max_element(out.depth.begin(), out.depth.end());
  if (deepest > out.loops || out.loops > loops || (!early_exit && out.loops != loops))
    throw ResultError("the engine ran " + std::to_string(out.loops) + " loops, expected " +
                      (early_exit ? std::to_string(deepest) + " to " : "") + std::to_string(loops) + " (max_loops " +
                      std::to_string(loops) + ", deepest token " + std::to_string(deepest) +
                      "); its results cannot be trusted (" + description() + ")");
  const auto* logits = static_cast<const float*>(outputs[0].data);
  out.batch = B, out.tokens = T, out.vocab = config.vocab_size;
  out.logits.assign(logits, logits + B * T * config.vocab_size);
  out.policy = buffers ? options.policy : "none";
  if (buffers) {
    out.exact = buffers->exact;  // of what this pass read
    buffers->append(outputs[3].data, outputs[4].data, tokens);
    buffers->exact = buffers->exact && out.loops == buffers->max_loops;
  }
  return out;
}

}  // namespace mythos
