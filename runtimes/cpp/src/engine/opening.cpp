#include "engine/opening.hpp"

#include <algorithm>
#include <array>

#include "batch.hpp"
#include "row_ports.hpp"

namespace mythos {
namespace engine {
namespace {

constexpr std::array<const char*, 3> kGraphs{kEnter, kStep, kLeave};

std::string file_of(const std::string& graph) { return graph + ".onnx"; }

std::string lacking(const Manifest& manifest) {
  for (const char* graph : kGraphs)
    if (!manifest.spec->graphs.count(graph) || !manifest.lists(file_of(graph))) return file_of(graph);
  return "";
}

}  // namespace

bool has_row_graphs(const Manifest& manifest) { return lacking(manifest).empty(); }

OpenGraph open_graphs(const std::string& folder, const Manifest& manifest, const LoadOptions& load) {
  const LoopSpec& spec = *manifest.spec;
  if (std::none_of(kGraphs.begin(), kGraphs.end(), [&](const char* graph) { return spec.graphs.count(graph); }))
    throw BundleError(folder + " has no row graphs, which the engine runs: with its exit rule " + spec.exit.name +
                      " there are none; run the model itself (mythos::Model), or export it again with another --exit");
  if (const std::string file = lacking(manifest); !file.empty())
    throw BundleError(folder + " has no " + file + ", which the engine runs; export the model again");
  if (const std::string problem = row_contradiction(spec); !problem.empty())
    throw BundleError(folder + ": the row graphs do not fit the model: " + problem + "; export the model again");
  LoadOptions chosen = load;
  chosen.provider = "cpu";
  auto weights = open_linked(folder, manifest.links, load.weights, load.verify == "hashes");
  return [folder, chosen, weights, spec = manifest.spec,
          opened = std::map<std::string, std::shared_ptr<OrtSession>>()](const std::string& graph) mutable {
    auto& session = opened[graph];
    const std::string file = plain_path(folder + "/" + file_of(graph));
    if (!session) session = open_graph(file, spec->graphs.at(graph), chosen, Role::kInTurns, weights);
    return session;
  };
}

std::unique_ptr<Core> make_core(std::shared_ptr<const LoopSpec> spec, const OpenGraph& open, const EngineOptions& options) {
  integer(options.memory, "memory", 1);
  integer(options.most_rows, "most_rows", 1);
  if (options.max_lag) integer(*options.max_lag, "max_lag", 1);
  const std::int64_t sequences =
      saturated_sum(integer(options.most_running, "most_running", 1), integer(options.prefixes, "prefixes", 0));
  const std::int64_t each = saturated_sum(options.max_lag.value_or(*EngineOptions{}.max_lag),
                                          std::min(integer(options.chunk, "chunk", 1), options.most_rows));
  const std::int64_t lagging = saturated_product(sequences, each);
  Memory memory = Memory::of(*spec, options.memory, options.max_loops.value_or(spec->trained_loops), lagging);
  const std::int64_t most_positions = std::min(spec->max_seq_len, memory.longest());
  auto graphs = std::make_unique<RowGraphs>(spec, open, memory, options.most_rows, most_positions);
  return std::make_unique<Core>(std::move(graphs), std::move(memory), options.max_lag);
}

std::unique_ptr<Core> growing_core(std::shared_ptr<const LoopSpec> spec, const OpenGraph& open) {
  const EngineOptions usual;
  Memory memory = Memory::with_room(*spec, {1, 1, kPage});
  auto graphs = std::make_unique<RowGraphs>(spec, open, memory, usual.most_rows, spec->max_seq_len);
  return std::make_unique<Core>(std::move(graphs), std::move(memory), usual.max_lag);
}

}  // namespace engine

Engine::Engine(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Engine::~Engine() = default;
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;

Engine Engine::open(const std::string& bundle, const LoadOptions& load, const EngineOptions& options) {
  check_options(load);
  const std::string folder = plain_path(bundle);
  const Manifest manifest = read_manifest(folder, load.verify == "hashes");
  auto parts = std::make_unique<Parts>();
  parts->core = engine::make_core(manifest.spec, engine::open_graphs(folder, manifest, load), options);
  parts->speculation = engine::speculation_of(options.speculate, manifest.spec->trained_loops);
  parts->engine = std::make_unique<engine::Engine>(*parts->core, options, parts->speculation.get());
  return Engine(std::move(parts));
}

const LoopSpec& Engine::spec() const { return parts_->core->spec(); }
std::shared_ptr<const Running> Engine::submit(Request request) { return parts_->engine->submit(std::move(request)); }
void Engine::cancel(const std::shared_ptr<const Running>& running) { parts_->engine->cancel(running); }
bool Engine::busy() const { return parts_->engine->busy(); }
std::vector<Token> Engine::tick() { return parts_->engine->tick(); }
EngineCounts Engine::counts() const {
  const auto& drafts = parts_->speculation;
  return {parts_->core->steps, parts_->core->rows, parts_->core->late, drafts ? drafts->drafted : 0, drafts ? drafts->accepted : 0};
}

}  // namespace mythos
