// Many requests at once: every call of the engine packs tokens of whatever request and loop depth, and who comes or goes
// does so between two calls.
//
//   mythos::Engine engine = mythos::Engine::open("bundle");
//   auto running = engine.submit({{1, 2, 3}, /*max_new_tokens=*/16});
//   while (engine.busy())
//     for (const mythos::Token& token : engine.tick())
//       std::cout << token.id << " took " << token.depth << " loops\n";
//
// Which tokens a request gets, and their logits to the last bit, depends on the request alone: not on when it came, on who
// ran beside it, on how its prompt was cut, on what was drafted, nor on whether it was sent back for want of memory and
// computed again. Only a budget of milliseconds depends on the machine. runtimes/python/mythos_runtime/engine has the same.
#pragma once

#include "mythos_runtime.hpp"

namespace mythos {

// How deep a request's new tokens may go, on average: they halt earlier than the model would let them. What easy tokens
// leave over, hard ones may use.
struct Budget {
  std::optional<double> loops_per_token;
  std::optional<double> latency_ms;  // milliseconds, by what calls of the graphs have taken lately
};

// What somebody wants to be generated.
struct Request {
  std::vector<std::int64_t> prompt;  // one id or more
  std::int64_t max_new_tokens = 1;
  std::optional<std::int64_t> max_loops;        // of its positions; default: as trained
  std::optional<double> halt_threshold;         // default: as trained; infinite: never, or at once, as the exit rule compares
  // What happens at the loops that a token did not run before it halted. "lazy": they are run when a later token needs their
  // cache entries. "full": they are run at once, with the same results. "share": its deepest entry stands for them, which is
  // approximate.
  std::string policy = "lazy";
  SamplingOptions sampling;
  std::vector<std::int64_t> eos;                // ids that end it; they stay in the result, as do
  std::vector<std::vector<std::int64_t>> stop;  // sequences of ids that end it
  std::uint64_t row = 0;                        // which of a batch's random numbers it draws
  std::uint64_t state_seed = 0;                 // what its first states are drawn with, where the model draws them
  std::optional<Budget> budget;                 // none: the engine's, if it has one
  // Loops of the position behind each token, in place of the exit rule's; what is longer than it goes on by the rule. A
  // recorded run is replayed so.
  std::vector<std::int64_t> depths;
};

// A request on its way.
struct Running {
  Request request;
  std::int64_t limit = 0;              // the request's loops and threshold, or as trained
  float threshold = 0;
  Budget budget;                       // the request's, or the engine's
  std::vector<std::int64_t> tokens;    // generated so far,
  std::vector<std::int32_t> depth;     // the loops of the positions behind the choices,
  std::vector<bool> capped;            // and whether they were not to go deeper, by the budget
  std::int64_t reused = 0;             // prompt tokens whose cache entries were there already
  std::string finished;                // "eos", "stop", "length", "cancelled" or "error" once it has ended, else ""
  std::string error;                   // the text of a ResultError, where that is "error"
};

// A token of a request, and what it was chosen from.
struct Token {
  std::shared_ptr<const Running> running;
  std::int64_t id = 0;
  std::int32_t depth = 0;
  std::vector<float> logits;
  bool capped = false;
};

struct EngineOptions {
  // Bytes for pages of the caches and states of positions that lag, which the system gives as they are touched. There are
  // states for max_lag and a chunk of every request that runs or is kept; where that is not enough, a request that finds none
  // first catches up on its lagging positions.
  std::int64_t memory = std::int64_t{1} << 30;
  std::optional<std::int64_t> max_loops;        // the most that a request may ask for; default: as trained
  std::int64_t most_rows = 256;                 // of a call
  std::int64_t most_running = 64;               // requests that run at a time; the others wait, in the order they came
  std::int64_t chunk = 64;                      // the most tokens of a prompt that enter at a time
  std::optional<double> patience;  // a share of the running requests: so many finished positions are waited for before they
                                   // leave together, since the layers around the loop cost a call about the same for one as
                                   // for many; none: as long as waiting has cost less than one more call of them
  std::optional<std::int64_t> loops_per_call;  // the most that rows which stay together run in one call, whose end whoever
                                               // comes waits for; none: as many as fit 50 ms, by what loops took lately
  std::optional<std::int64_t> max_lag = 64;  // positions of a request that may lag before they are made to run every depth:
                                             // a bound on what a hard token has to wait for; none: bounded only by
                                             // memory
  Budget budget;                // of requests that have none of their own
  std::int64_t prefixes = 0;    // ended requests whose cache entries are kept, for those that begin with the same tokens
  std::int64_t speculate = 0;   // loops after which tokens are drafted, to be verified together; kAuto: as it pays; 0: never
};

// What an engine holds.
struct EngineUsage {
  std::int64_t running = 0, waiting = 0;     // requests
  std::int64_t pages = 0, pages_free = 0;    // of the caches
  std::int64_t states = 0, states_free = 0;  // of positions that lag
  std::int64_t prefixes = 0;                 // ended requests that are kept
};

// On the CPU. For one thread at a time; several engines on one model may be in as many threads, and take turns.
class MYTHOS_API Engine {
 public:
  // BundleError: the bundle has no row graphs, or they are damaged. CapacityError: the memory holds no page. Others: see
  // Model::load.
  static Engine open(const std::string& bundle, const LoadOptions& load = {}, const EngineOptions& options = {});
  // On a model that is loaded already, which it may outlive. Memory is the model's, and grows with what requests may need, so
  // that memory, max_loops, most_rows and max_lag are not looked at. RequestError: the model runs no row graphs, or `prefixes`
  // is not 0: what is kept would be nobody's.
  static Engine of(Model& model, const EngineOptions& options = {});
  ~Engine();
  Engine(Engine&&) noexcept;
  Engine& operator=(Engine&&) noexcept;

  const LoopSpec& spec() const;
  // Queues a request. RequestError: it asks for what this model cannot do. CapacityError: its tokens do not fit the model,
  // or all the memory.
  std::shared_ptr<const Running> submit(Request request);
  // Ends a request now; its memory is free at once.
  void cancel(const std::shared_ptr<const Running>& running);
  bool busy() const;  // whether anything is left to do
  // At most one call of each graph. The tokens that were chosen: where a call fails after that, they are told, and the next
  // tick fails, unless one who was there then has ended.
  std::vector<Token> tick();
  EngineCounts counts() const;  // of all engines on the model, where there are several
  EngineUsage usage() const;    // likewise, but for the requests
  std::int64_t pages_running() const;  // pages that its running requests hold, each once; looks at every table

  struct Parts;  // what it is made of is not for callers
  explicit Engine(std::unique_ptr<Parts> parts);

 private:
  std::unique_ptr<Parts> parts_;
};

}  // namespace mythos
