#include "engine/opening.hpp"

#include <algorithm>
#include <array>

#include "batch.hpp"
#include "engine/device_graphs.hpp"
#include "line_ports.hpp"
#include "row_ports.hpp"
#include "session.hpp"

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

// Positions of the longest sequence that there is room for.
std::int64_t longest_of(const LoopSpec& spec, const Room& room) {
  const bool around = std::any_of(spec.caches.begin(), spec.caches.end(), [](const CacheGroup& group) { return !group.per_loop; });
  return std::min(spec.max_seq_len, kPage * (around ? room.around : room.loop));
}

std::unique_ptr<Core> core_of(std::shared_ptr<const LoopSpec> spec, const OpenRows& open, const Room& room,
                              std::int64_t most_rows, std::int64_t most_positions, std::optional<std::int64_t> max_lag) {
  if (open.lines) {
    const auto lines = std::make_shared<LineGraphs>(open.lines);
    Memory memory = Memory::with_room(*spec, room, LineGraphs::pools(lines), std::make_unique<DeviceStates>(*spec, room.lines, lines));
    auto graphs = std::make_unique<DeviceGraphs>(std::move(spec), open.graph, *lines, memory, most_rows);
    return std::make_unique<Core>(std::move(graphs), std::move(memory), max_lag);
  }
  Memory memory = Memory::with_room(*spec, room);
  auto graphs = std::make_unique<RowGraphs>(std::move(spec), open.graph, memory, most_rows, most_positions);
  return std::make_unique<Core>(std::move(graphs), std::move(memory), max_lag);
}

}  // namespace

bool has_row_graphs(const Manifest& manifest) { return lacking(manifest).empty(); }

OpenRows open_rows(const std::string& folder, const Manifest& manifest, const LoadOptions& load) {
  const LoopSpec& spec = *manifest.spec;
  if (std::none_of(kGraphs.begin(), kGraphs.end(), [&](const char* graph) { return spec.graphs.count(graph); }))
    throw BundleError(folder + " has no row graphs, which the engine runs: with its exit rule " + spec.exit.name +
                      " there are none; run the model itself (mythos::Model), or export it again with another --exit");
  if (const std::string file = lacking(manifest); !file.empty())
    throw BundleError(folder + " has no " + file + ", which the engine runs; export the model again");
  if (const std::string problem = row_contradiction(spec); !problem.empty())
    throw BundleError(folder + ": the row graphs do not fit the model: " + problem + "; export the model again");
  LoadOptions chosen = load;
  const bool on_cuda = rows_on_cuda(load);
  chosen.provider = on_cuda ? "cuda" : "cpu";
  if (on_cuda)
    for (const std::string& file : device_files())
      if (!manifest.lists(file))
        throw BundleError(folder + " has no " + file + ", which the engine needs in ONNX Runtime on CUDA; export the model "
                          "again with --target cuda, or take provider cpu");
  auto weights = open_linked(folder, manifest.links, load.weights, hashes_weights(load));
  OpenRows open;
  // What writes into pages without returning them takes this project's own operators.
  const bool in_loop = manifest.lists(file_of(kLoops)) && !on_cuda && !find_op_library(chosen.op_library).empty();
  open.graph = [folder, chosen, weights, in_loop, on_cuda, spec = manifest.spec,
                opened = std::map<std::string, std::shared_ptr<OrtSession>>()](const std::string& graph) mutable {
    if (graph == kLoops && !in_loop) return std::shared_ptr<OrtSession>();
    auto& session = opened[graph];
    const std::string file = plain_path(folder + "/" + (on_cuda ? rows_file(graph) : file_of(graph)));
    const Ports ports = on_cuda            ? rows_on_lines(*spec).at(graph)
                        : graph == kLoops ? loop_ports(spec->graphs.at(kStep))
                                          : spec->graphs.at(graph);
    if (!session) session = open_graph(file, ports, chosen, Role::kModel, weights);
    return session;
  };
  if (on_cuda)
    open.lines = [folder, chosen](const std::string& graph, const Ports& ports) {
      return std::shared_ptr<OrtSession>(open_graph(plain_path(folder + "/" + move_file(graph)), ports, chosen, Role::kLines));
    };
  return open;
}

std::unique_ptr<Core> make_core(std::shared_ptr<const LoopSpec> spec, const OpenRows& open, const EngineOptions& options) {
  integer(options.memory, "memory", 1);
  integer(options.most_rows, "most_rows", 1);
  if (options.max_lag) integer(*options.max_lag, "max_lag", 1);
  const std::int64_t sequences =
      saturated_sum(integer(options.most_running, "most_running", 1), integer(options.prefixes, "prefixes", 0));
  const std::int64_t each = saturated_sum(options.max_lag.value_or(*EngineOptions{}.max_lag),
                                          std::min(integer(options.chunk, "chunk", 1), options.most_rows));
  const std::int64_t lagging = saturated_product(sequences, each);
  const Room room = Memory::room(*spec, options.memory, options.max_loops.value_or(spec->trained_loops), lagging);
  const std::int64_t longest = longest_of(*spec, room);  // before it is moved: arguments are evaluated in any order
  return core_of(std::move(spec), open, room, options.most_rows, longest, options.max_lag);
}

std::unique_ptr<Core> growing_core(std::shared_ptr<const LoopSpec> spec, const OpenRows& open) {
  const EngineOptions usual;
  const std::int64_t longest = spec->max_seq_len;
  return core_of(std::move(spec), open, {1, 1, kPage}, usual.most_rows, longest, usual.max_lag);
}

}  // namespace engine
}  // namespace mythos
