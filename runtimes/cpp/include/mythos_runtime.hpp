// Runs bundles made by mythos-export, without Python.
//
//   #include <mythos_runtime.hpp>
//   #include <iostream>
//
//   int main() {
//     try {
//       mythos::Model model = mythos::Model::load("bundle");
//       mythos::Output out = model.forward(mythos::Tokens::rows({{1, 2, 3}, {4}}));  // a ragged batch
//       std::cout << out.loops << " loops, first logit " << out.logit(0, 2)[0] << "\n";
//
//       mythos::Cache cache = model.new_cache(/*batch=*/1, /*capacity=*/64);
//       model.forward(mythos::Tokens::rows({{1, 2, 3}}), {}, &cache);               // appends to the cache
//
//       mythos::GenerateOptions options;
//       options.max_new_tokens = 16;
//       options.sampling.temperature = 0.8;
//       model.generate({{1, 2, 3}, {4}}, options, [](const mythos::Step& step) {    // as the tokens come
//         std::cout << step.tokens[0] << " took " << step.depth[0] << " loops\n";
//         return true;                                                             // false: enough
//       });
//     } catch (const mythos::Error& error) {
//       std::cerr << "error: " << error.what() << "\n";  // what was found, what was expected, what to do
//       return error.exit_code();
//     }
//   }
//
// The contract is the one of the Python package mythos_runtime: same files, same checks, same texts of errors, and for
// one seed the same tokens. Other languages: mythos_runtime.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "mythos_spec.hpp"

namespace mythos {

MYTHOS_API const char* version();  // of this library, such as 0.2.0

// -- errors: each carries the exit code that a command line should leave with --------------------------------------------

class MYTHOS_API Error : public std::runtime_error {
 public:
  Error(const std::string& text, int exit_code) : std::runtime_error(text), exit_code_(exit_code) {}
  int exit_code() const { return exit_code_; }

 private:
  int exit_code_;
};
// The bundle is damaged, incomplete, of an unknown version, or not a bundle.
struct MYTHOS_API BundleError : Error { explicit BundleError(const std::string& text) : Error(text, 2) {} };
// The caller asked for something that this model cannot do.
struct MYTHOS_API RequestError : Error { explicit RequestError(const std::string& text) : Error(text, 2) {} };
// The tokens do not fit the cache or the model's sequence length; nothing was computed or written.
struct MYTHOS_API CapacityError : RequestError { using RequestError::RequestError; };
// This machine lacks what the backend needs; the text says what to install.
struct MYTHOS_API BackendMissing : Error { explicit BackendMissing(const std::string& text) : Error(text, 3) {} };
// The backend could not finish a call that was valid: memory, a driver, a kernel.
struct MYTHOS_API BackendFailed : Error { explicit BackendFailed(const std::string& text) : Error(text, 3) {} };
// The backend returned something that cannot be right, such as more loops than were allowed, or NaN.
struct MYTHOS_API ResultError : Error { explicit ResultError(const std::string& text) : Error(text, 1) {} };

// -- loading -------------------------------------------------------------------------------------------------------------

struct LoadOptions {
  std::string backend;               // onnxruntime or tensorrt; "": the first that the bundle has a file for
  std::optional<int> threads;        // CPU threads; none: the engine's choice
  std::string verify = "hashes";     // of every file against the manifest; "sizes": only these, which takes no reading
  std::string provider = "auto";     // for onnxruntime: cpu, cuda (or fail), auto (cuda where it works)
  std::string op_library = "auto";   // native operators; "none": the portable bodies; else a path. "auto": the variable
                                     // MYTHOS_OP_LIBRARY, then libmythos_ops.so where this library was installed
  std::string verify_weights;        // of what `weights` names: "hashes" or "sizes"; "": as `verify` says
  std::string weights;               // of a bundle whose weights are in files outside of it: where these are, if not where
                                     // they were at the export; the file, or a folder. Their content is checked at every
                                     // load; with "sizes" only that of files that are named here is not
};

// -- forward passes --------------------------------------------------------------------------------------------------------

enum class Padding { right, left };

// New tokens of a batch: ids and valid (0 marks padding), both [batch, tokens].
struct MYTHOS_API Tokens {
  std::int64_t batch = 0, tokens = 0;
  std::vector<std::int64_t> ids;
  std::vector<std::uint8_t> valid;
  // From rows of any lengths, the shorter ones padded.
  static Tokens rows(const std::vector<std::vector<std::int64_t>>& rows, Padding side = Padding::right);
};

struct ForwardOptions {
  std::optional<std::int64_t> max_loops;   // default: the cache's, or as trained
  std::optional<double> halt_threshold;    // default: as trained; infinite: never, or at once, as the exit rule compares
  std::uint64_t state_seed = 0;            // of models that draw a state before the first loop: the seed it is drawn with,
  std::vector<float> initial_state;        // or the state itself, [batch, tokens, size] (not for generate)
};

struct Output {
  std::int64_t batch = 0, tokens = 0, vocab = 0;
  std::vector<float> logits;         // [batch, tokens, vocab]; padding means nothing
  std::vector<std::int32_t> depth;   // [batch, tokens], loops that contributed to a token; 0 for padding
  std::int64_t loops = 0;            // iterations that ran for these tokens
  double seconds = 0;                // in the engine
  const float* logit(std::int64_t row, std::int64_t token) const { return logits.data() + (row * tokens + token) * vocab; }
};

// Keys and values of every layer and loop depth. Made by Model::new_cache.
class MYTHOS_API Cache {
 public:
  // Of a model that is one graph, in buffers that are allocated once.
  Cache(std::int64_t batch, std::int64_t capacity, std::shared_ptr<const LoopSpec> spec,
        std::optional<std::int64_t> max_loops);
  ~Cache();
  Cache(Cache&&) noexcept;
  Cache& operator=(Cache&&) noexcept;

  std::int64_t batch() const;
  std::int64_t capacity() const;
  std::int64_t max_loops() const;
  std::size_t nbytes() const;                         // of its buffers, or of the pages that its rows hold
  const std::vector<std::int64_t>& lengths() const;   // tokens held, per row
  Cache fork(const std::vector<std::int64_t>& rows = {}) const;   // an independent copy, of all rows or of these
  void truncate(const std::vector<std::int64_t>& lengths);        // drops what is beyond, per row
  void reset();
  // What a row holds at one loop, or around the loop (kAround), as pages hold it: [slots, length, width of a line] of the
  // group's element type, in int8 with the scales where it is rounded. What lags is run first. RequestError: the cache is of a
  // model that is one graph, on a device, or has no such loop.
  std::vector<char> read(std::int64_t row, std::int64_t loop);
  // Has a row hold `length` tokens of these, as `read` gives them: around the loop, and all loops one behind the other.
  // RequestError, CapacityError: nothing was changed.
  void write(std::int64_t row, std::int64_t length, const std::vector<char>& around, const std::vector<char>& loops);
  static constexpr std::int64_t kAround = -1;

  struct Buffers;  // what it is made of is not for callers

 private:
  friend class Model;
  explicit Cache(std::unique_ptr<Buffers> buffers);
  std::unique_ptr<Buffers> buffers_;
};

// -- generation --------------------------------------------------------------------------------------------------------------

// The knobs of the choice; the defaults are greedy. Specified in runtimes/python/mythos_runtime/sampling.py.
struct SamplingOptions {
  double temperature = 0;
  std::int64_t top_k = 0;            // 0: off
  double top_p = 1;                  // 1: off
  double min_p = 0;                  // 0: off
  double repetition_penalty = 1;     // 1: off
  std::uint64_t seed = 0;
};

constexpr std::int64_t kAuto = -1;

struct GenerateOptions {
  std::optional<std::int64_t> max_new_tokens;   // default and most: the model's max_output_tokens
  SamplingOptions sampling;
  std::optional<std::vector<std::int64_t>> eos; // ids that end a row; default: the bundle's
  std::vector<std::vector<std::int64_t>> stop;  // sequences of ids that end a row
  ForwardOptions forward;
  std::int64_t prefill_chunk = 256;             // the most tokens of a prompt per call of a graph
  // What happens at the loops that a token did not run before it halted (see Request in mythos_engine.hpp): "lazy", "full"
  // with the same results, or "share", which is approximate. "": lazy, or, where no row graphs run, full.
  std::string policy;
  std::int64_t speculate = 0;                   // loops after which tokens are drafted; kAuto: as it pays; 0: never
  std::optional<double> loops_per_token;        // budgets, by which new tokens halt earlier than the model would: on average,
  std::optional<double> latency_ms;             // or by what calls of the graphs have taken lately
};

// What the engine has done so far.
struct EngineCounts {
  std::int64_t steps = 0;  // loops of rows that ran together
  std::int64_t rows = 0;   // positions of all of them
  std::int64_t late = 0;   // of these, positions that had halted before, and run for a later one's sake
  std::int64_t drafted = 0, accepted = 0;  // tokens that were drafted, and those that were right
};

// One token for every row that is still going.
struct Step {
  std::vector<std::int64_t> tokens;    // -1 for a row that had finished before
  std::vector<std::int32_t> depth;     // loops that the position behind each choice took
  std::int64_t loops = 0;              // the most of them; where the whole model runs, those that ran
  // In the engine since the last step; of the first step, for the whole prefill. Rows run ahead of each other, and several
  // tokens may come of one round of drafts.
  double seconds = 0;
  std::vector<bool> capped;            // whether a budget kept the position from going deeper
  std::vector<std::string> finished;   // per row "eos", "stop" or "length" once it has ended, else ""
  EngineCounts counts;                 // of the generation so far; zeros where no row graphs ran
};

struct MYTHOS_API GenerationResult {
  std::vector<std::vector<std::int64_t>> tokens;
  std::vector<std::vector<std::int32_t>> depth;
  std::vector<std::int64_t> loops;
  std::vector<std::string> stop_reasons;
  double prefill_seconds = 0, decode_seconds = 0;
  EngineCounts counts;
  double tokens_per_second() const;    // tokens of all rows after the first step, over the engine's time for them
};

// Text to ids and back. Bytes are built in; a tokenizer.json is read by libmythos_tokenizer, where that is installed.
class MYTHOS_API Tokenizer {
 public:
  class MYTHOS_API Stream {  // ids in one by one, text out as it becomes certain
   public:
    virtual ~Stream() = default;
    virtual std::string feed(std::int64_t id) = 0;
    virtual std::string finish() = 0;  // what is left: half a character, say
  };
  virtual ~Tokenizer() = default;
  // RequestError where it is not UTF-8. special: with what surrounds a text, such as a BOS.
  virtual std::vector<std::int64_t> encode(const std::string& text, bool special = true) const = 0;
  virtual std::string decode(const std::vector<std::int64_t>& ids) const = 0;
  virtual std::unique_ptr<Stream> stream() const = 0;
};

// A part of a conversation; role: system, user or assistant.
struct ChatMessage {
  std::string role, content;
};

// What a bundle says of its text.
struct MYTHOS_API TokenizerEntry {
  std::string kind, file;                      // "bytes", "tokenizer.json" with its file, "ids", or "" where it says nothing
  std::vector<std::int64_t> eos;               // ids that end a generation
  std::map<std::string, double> defaults;      // of a generation: temperature, top_k, ..., max_new_tokens
  std::string chat_template;                   // the Jinja template in the bundle that makes a prompt of a conversation, or ""
  std::map<std::string, std::string> special_tokens;  // texts that it may ask for by name, such as bos_token
  std::map<std::string, std::string> sources;  // where these came from, by field, for people
};

// A model ready to run. Forward passes, generations and engines of one model may be in several threads at once; a cache is for
// one of them at a time, and so is all the rest of a model.
class MYTHOS_API Model {
 public:
  static Model load(const std::string& bundle, const LoadOptions& options = {});
  ~Model();
  Model(Model&&) noexcept;
  Model& operator=(Model&&) noexcept;

  const LoopSpec& spec() const;
  const std::string& description() const;   // engine, device, threads, kernels
  bool not_verified() const;                // exported with --verify later: nothing was compared with its model
  const std::string& operators() const;     // "native" kernels, "portable" bodies in the graph (slow), or the "engine"'s own
  bool runs_rows() const;                   // whether generating runs the engine, on the bundle's row graphs
  const TokenizerEntry& tokenizer_entry() const;
  // Null where the bundle has none; BackendMissing where libmythos_tokenizer is needed, and not installed.
  std::unique_ptr<Tokenizer> tokenizer() const;
  // The ids of a conversation and of the words with which the model's answer begins, by the bundle's chat template.
  // RequestError where it has none or that refuses the conversation; BackendMissing without libmythos_tokenizer.
  std::vector<std::int64_t> encode_chat(const std::vector<ChatMessage>& messages) const;

  // An empty cache for `batch` rows of up to `capacity` tokens, at `max_loops` depths (default: as trained). policy: what
  // happens at the loops that a token did not run before it halted (Request in mythos_engine.hpp); "": lazy, or, where no row
  // graphs run, full. CapacityError: the model takes less, or the memory is not there.
  Cache new_cache(std::int64_t batch, std::int64_t capacity, std::optional<std::int64_t> max_loops = {},
                  const std::string& policy = "") const;
  // ResultError where the engine returned what cannot be right, NaN among it; RequestError where another thread is at work
  // with the cache. Nothing is written to it then.
  Output forward(const Tokens& tokens, const ForwardOptions& options = {}, Cache* cache = nullptr);
  // Calls back after every token until no row has more to say or the callback returns false. On the CPU it is the engine of
  // mythos_engine.hpp that runs, with a request for each row.
  void generate(const std::vector<std::vector<std::int64_t>>& prompts, const GenerateOptions& options,
                const std::function<bool(const Step&)>& on_step);
  GenerationResult generate_all(const std::vector<std::vector<std::int64_t>>& prompts,
                                const GenerateOptions& options = {});

 private:
  friend class Engine;
  struct Parts;
  explicit Model(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace mythos
