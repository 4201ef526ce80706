// A loaded model: forward passes with and without a cache (model.py).
#include "model.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>

#include "batch.hpp"
#include "chat.hpp"
#include "engine/request.hpp"
#include "files.hpp"
#include "guards.hpp"
#include "noise.hpp"
#include "row_ports.hpp"
#include "text.hpp"

namespace mythos {
namespace {

constexpr std::int64_t kMostWholeLoops = (std::int64_t{1} << 31) - 1;

std::int64_t loops_of(const ForwardOptions& options, const LoopSpec& spec, const Cache* cache) {
  if (!options.max_loops) return cache ? cache->max_loops() : spec.trained_loops;
  const std::int64_t loops = integer(*options.max_loops, "max_loops", 0, kMostWholeLoops);
  const std::string text = std::to_string(loops);
  if (cache && loops != cache->max_loops())
    throw RequestError("max_loops is " + text + ", but the cache holds " + std::to_string(cache->max_loops()) +
                       " loop depths, the same for all its tokens; make one with new_cache(..., max_loops=" + text + ")");
  return loops;
}

// The graph's input `initial_state`, where it has one.
std::vector<float> initial_of(const ForwardOptions& options, const LoopSpec& spec,
                              const std::vector<std::int64_t>& positions, std::int64_t batch, std::int64_t tokens) {
  const StateTensor* tensor = spec.initial();
  const std::vector<float>& given = options.initial_state;
  if (!tensor && !given.empty())
    throw RequestError("this model (" + spec.family + ") has no initial_state: its first state is computed");
  if (!tensor) return {};
  if (given.empty()) return initial_state(*tensor, positions, options.state_seed);
  const std::int64_t width = tensor->dims.back().size;
  if (given.size() != positions.size() * static_cast<std::size_t>(width))
    throw RequestError("initial_state has " + std::to_string(given.size()) + " elements, expected " +
                       list_in_words({batch, tokens, width}));
  return given;
}

// A chunk behind what a cache of rows holds.
Output on_rows(Cache::Buffers& buffers, const Tokens& tokens, const std::vector<std::int64_t>& counts, float threshold,
               const ForwardOptions& options) {
  const LoopSpec& spec = *buffers.spec;
  std::vector<float> given;  // the seed makes the others
  if (!options.initial_state.empty())
    given = initial_of(options, spec, std::vector<std::int64_t>(tokens.ids.size()), tokens.batch, tokens.tokens);
  Output out;
  out.batch = tokens.batch, out.tokens = tokens.tokens, out.vocab = spec.vocab_size;
  const auto started = std::chrono::steady_clock::now();
  buffers.rows->forward(tokens, threshold, options.state_seed, given, out);
  out.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  for (std::size_t row = 0; row < counts.size(); ++row) buffers.lengths[row] += counts[row];
  return out;
}

}  // namespace

const char* version() { return MYTHOS_VERSION; }

Model::Model(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Model::~Model() = default;
Model::Model(Model&&) noexcept = default;
Model& Model::operator=(Model&&) noexcept = default;

Model Model::load(const std::string& bundle, const LoadOptions& options) {
  check_options(options);
  auto parts = std::make_unique<Parts>();
  Bundle& b = parts->bundle;
  b.folder = plain_path(bundle);
  b.manifest = read_manifest(b.folder, options.verify == "hashes");
  parts->session = open_session(b, options);
  if (parts->session->runs_rows && engine::has_row_graphs(b.manifest)) {
    LoadOptions chosen = options;
    chosen.provider = parts->session->on_cpu ? "cpu" : "cuda";
    parts->open_rows = engine::open_rows(b.folder, b.manifest, chosen);
  }
  return Model(std::move(parts));
}

const LoopSpec& Model::spec() const { return *parts_->bundle.manifest.spec; }
const std::string& Model::description() const { return parts_->session->description; }
bool Model::not_verified() const {
  const auto& targets = parts_->bundle.manifest.targets;
  return std::any_of(targets.begin(), targets.end(), [](const Target& target) { return target.state == "not verified"; });
}

const std::string& Model::operators() const { return parts_->session->operators; }

bool Model::runs_rows() const { return static_cast<bool>(parts_->open_rows.graph); }

const TokenizerEntry& Model::tokenizer_entry() const { return parts_->bundle.manifest.tokenizer; }

std::unique_ptr<Tokenizer> Model::tokenizer() const {
  const TokenizerEntry& entry = tokenizer_entry();
  if (entry.kind == "bytes") return make_byte_tokenizer(spec().vocab_size);
  if (entry.kind != "tokenizer.json") return nullptr;
  if (!parts_->json)
    parts_->json = open_tokenizer_json(locate(parts_->bundle.folder, entry.file).string(), spec().vocab_size);
  return make_json_tokenizer(parts_->json);
}

std::vector<std::int64_t> Model::encode_chat(const std::vector<ChatMessage>& messages) const {
  const TokenizerEntry& entry = tokenizer_entry();
  const auto text = tokenizer();
  if (!text) throw RequestError("this bundle has no tokenizer, so it cannot chat; export it with --tokenizer");
  if (entry.chat_template.empty())
    throw RequestError("this bundle has no chat template: give a prompt as the model was trained to see it, or export it from "
                       "a folder with a chat_template.jinja or a tokenizer_config.json");
  const std::string source = read_template(parts_->bundle.folder, entry.chat_template);
  return text->encode(render_chat(source, messages, entry.special_tokens), false);
}

std::shared_ptr<engine::Pool> Model::Parts::rows() {
  const std::lock_guard<std::mutex> alone(opening);
  if (!pool && open_rows.graph)
    pool = std::make_shared<engine::Pool>(engine::growing_core(bundle.manifest.spec, open_rows));
  return pool;
}

Cache Model::new_cache(std::int64_t batch, std::int64_t capacity, std::optional<std::int64_t> max_loops,
                       const std::string& policy) const {
  const auto pool = parts_->rows();
  if (!pool) {
    if (!policy.empty() && policy != "full") throw whole_model_only(policy, parts_->session->name);
    return Cache(batch, capacity, parts_->bundle.manifest.spec, max_loops);
  }
  auto buffers = Cache::Buffers::of(batch, capacity, parts_->bundle.manifest.spec, max_loops);
  if (buffers->max_loops > kMostLoops)
    throw RequestError("a cache holds at most " + std::to_string(kMostLoops) + " loop depths, found max_loops " +
                       std::to_string(buffers->max_loops));
  try {
    buffers->rows = std::make_unique<engine::RowCache>(pool, batch, capacity, buffers->max_loops,
                                                       engine::policy_of(policy.empty() ? "lazy" : policy));
  } catch (const CapacityError&) {
    throw no_memory(spec(), batch, capacity, std::max<std::int64_t>(buffers->max_loops, 1), true);
  }
  buffers->lengths.assign(static_cast<std::size_t>(batch), 0);
  return Cache(std::move(buffers));
}

RequestError whole_model_only(const std::string& policy, const std::string& backend) {
  return RequestError("the backend " + backend + " runs the whole model in one call, which takes the cache policy full only, "
                      "found " + py_repr(policy));
}

Output Model::forward(const Tokens& given, const ForwardOptions& options, Cache* cache) {
  const LoopSpec& spec = this->spec();
  const Tokens tokens = checked(given, spec.vocab_size);
  const std::int64_t loops = loops_of(options, spec, cache);
  const float threshold = threshold_of(options.halt_threshold, spec, std::nan(""));
  const bool early_exit = !cache;  // later tokens look at every depth of a cache
  const std::vector<std::int64_t> counts = counts_of(tokens);
  const std::int64_t B = tokens.batch, T = tokens.tokens;
  Symbols symbols{{"B", B}, {"T", T}, {"P", 0}, {"N", std::max<std::int64_t>(loops, 1)}};
  std::vector<std::int64_t> past_lengths(static_cast<std::size_t>(B), 0);
  Cache::Buffers* buffers = cache ? cache->buffers_.get() : nullptr;
  const Using alone(buffers);
  if (!buffers) {
    const std::int64_t longest = *std::max_element(counts.begin(), counts.end());
    if (longest > spec.max_seq_len)
      throw CapacityError("a sequence of " + std::to_string(longest) + " tokens exceeds the " +
                          std::to_string(spec.max_seq_len) + " that this model takes (max_seq_len)");
  } else {
    if (buffers->batch != B)
      throw RequestError("ids have " + std::to_string(B) + " rows, the cache has " + std::to_string(buffers->batch));
    if (!buffers->spec->fits(spec))
      throw RequestError("the cache was made for another model; make one with this model's new_cache");
    buffers->check_room(counts);
    symbols["P"] = buffers->capacity, symbols["N"] = std::max<std::int64_t>(buffers->max_loops, 1);
    past_lengths = buffers->lengths;
  }
  if (buffers && buffers->rows) {
    if (buffers->rows->pool() != parts_->rows())
      throw RequestError("the cache was made by another model; make one with this model's new_cache");
    return on_rows(*buffers, tokens, counts, threshold, options);
  }
  const std::vector<std::int64_t> positions = positions_of(tokens, past_lengths);
  const std::vector<float> initial = initial_of(options, spec, positions, B, T);
  const std::map<std::string, const void*> values{
      {"ids", tokens.ids.data()}, {"positions", positions.data()},   {"past_lengths", past_lengths.data()},
      {"max_loops", &loops},      {"halt_threshold", &threshold},    {"early_exit", &early_exit},
      {"initial_state", initial.data()}};
  const auto past_of = [&](const std::string& group) -> const void* {
    if (!buffers) return "";  // of no element, but never null
    for (std::size_t i = 0;; ++i)
      if (spec.caches[i].name == group) return buffers->past[i].memory.get();
  };
  std::vector<Tensor> inputs;
  for (const Port& port : spec.ports().inputs)
    inputs.push_back({port.name, port.dtype, shape_of(port, symbols),
                      port.role == "past" ? past_of(port.group) : values.at(port.role), nullptr});
  const auto started = std::chrono::steady_clock::now();
  const std::vector<Tensor> outputs = parts_->session->run(inputs);
  Output out;
  out.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();

  // Graph compilers have been seen to run a loop once too often, so the counter is not taken on trust.
  const std::vector<Port>& ports = spec.ports().outputs;
  check_outputs(ports, outputs, symbols);
  const auto output = [&](const std::string& role, const std::string& group = "") {
    return outputs[static_cast<std::size_t>(&spec.ports().of(role, group) - ports.data())].data;
  };
  const auto* depth = static_cast<const std::int32_t*>(output("depth"));
  out.depth.assign(depth, depth + B * T);
  std::memcpy(&out.loops, output("loops"), sizeof out.loops);
  const std::int64_t deepest = *std::max_element(out.depth.begin(), out.depth.end());
  if (deepest > out.loops || out.loops > loops || (!early_exit && out.loops != loops))
    throw ResultError("the engine ran " + std::to_string(out.loops) + " loops, expected " +
                      (early_exit ? std::to_string(deepest) + " to " : "") + std::to_string(loops) + " (max_loops " +
                      std::to_string(loops) + ", deepest token " + std::to_string(deepest) +
                      "); its results cannot be trusted (" + description() + ")");
  const auto* logits = static_cast<const float*>(output("logits"));
  check_numbers(logits, tokens, spec.vocab_size, description());
  out.batch = B, out.tokens = T, out.vocab = spec.vocab_size;
  out.logits.assign(logits, logits + B * T * spec.vocab_size);
  if (buffers) {
    std::vector<const void*> entries;
    for (const CacheGroup& group : spec.caches) entries.push_back(output("new", group.name));
    buffers->append(entries, tokens);
  }
  return out;
}

}  // namespace mythos
