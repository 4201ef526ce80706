#include "line_ports.hpp"

#include <algorithm>

#include "row_ports.hpp"

namespace mythos {
namespace {

const Dim kLines{0, "L"}, kRows{0, "R"}, kBytes{0, "B"};
const Port kNumbers{"lines", "int64", {kRows}, "lines", ""};

std::vector<Dim> behind(const Dim& first, const StateTensor& tensor) {
  std::vector<Dim> dims{first};
  for (const Dim& dim : tensor.dims)
    if (dim.symbol.empty()) dims.push_back(dim);
  return dims;
}

// The pools of what is kept of a position that lags.
class Pools {
 public:
  explicit Pools(const LoopSpec& spec) : kept_(spec.state) {
    kept_.push_back(spec.state[0]);
    kept_.back().name = "encoded";
    kept_.push_back({"token", "int64", {{0, "B"}, {0, "T"}}, "", {}, {}});
  }
  // Those of these names, each once, as inputs of a graph; `written`: as outputs, too.
  void add(Ports& ports, const std::vector<std::string>& names, bool written) const {
    for (const std::string& name : names) {
      const auto found = std::find_if(kept_.begin(), kept_.end(), [&](const StateTensor& each) { return each.name == name; });
      if (found == kept_.end()) continue;  // not of a spec whose exit rule fits its states
      const Port pool{name + "_pool", found->dtype, behind(kLines, *found), "pool", name};
      if (std::find(ports.inputs.begin(), ports.inputs.end(), pool) != ports.inputs.end()) continue;
      ports.inputs.push_back(pool);
      if (written) ports.outputs.push_back({pool.name + "_next", pool.dtype, pool.dims, "pool_next", name});
    }
  }

 private:
  std::vector<StateTensor> kept_;
};

// Adds the ports of other roles than these.
void add_but(std::vector<Port>& ports, const std::vector<Port>& others, const std::vector<std::string>& roles) {
  std::copy_if(others.begin(), others.end(), std::back_inserter(ports),
               [&](const Port& port) { return std::find(roles.begin(), roles.end(), port.role) == roles.end(); });
}

bool reads_tokens(const Ports& ports) {
  return std::any_of(ports.inputs.begin(), ports.inputs.end(), [](const Port& port) { return port.role == "ids"; });
}

}  // namespace

std::map<std::string, Ports> move_ports() {
  const Port pool{"pool", "int8", {kLines, kBytes}, "pool", ""}, rows{"rows", "int8", {kRows, kBytes}, "row", ""};
  return {{kTakeBytes, {{kNumbers, pool}, {rows}}},
          {kPutBytes, {{kNumbers, rows, pool}, {{"pool_next", "int8", pool.dims, "pool_next", ""}}}}};
}

std::map<std::string, Ports> rows_on_lines(const LoopSpec& spec) {
  const Pools pools(spec);
  std::vector<std::string> states;
  for (const StateTensor& tensor : spec.state) states.push_back(tensor.name);

  const Ports& entering = spec.graphs.at(kEnter);
  Ports enter{{kNumbers}, {}};
  add_but(enter.inputs, entering.inputs, {});
  add_but(enter.outputs, entering.outputs, {"encoded"});
  if (const StateTensor* drawn = spec.initial())
    enter.inputs.push_back({"initial", drawn->dtype, behind(kRows, *drawn), "initial", ""});
  pools.add(enter, states, true);
  pools.add(enter, {"encoded", "token"}, true);

  const Ports& stepping = spec.graphs.at(kStep);
  Ports step{{kNumbers}, {{"seen", "int32", {kRows, {2, ""}}, "seen", ""}}};
  add_but(step.inputs, stepping.inputs, {"encoded", "ids", "state"});
  add_but(step.outputs, stepping.outputs, {"state_next"});
  pools.add(step, {"encoded"}, false);
  if (reads_tokens(stepping)) pools.add(step, {"token"}, false);
  pools.add(step, states, true);

  const Ports& leaving = spec.graphs.at(kLeave);
  Ports leave{{kNumbers}, leaving.outputs};
  if (spec.exit.spent) leave.inputs.push_back({"early", "bool", {kRows}, "early", ""});
  add_but(leave.inputs, leaving.inputs, {"answer", "ids"});
  pools.add(leave, {spec.state[1].name}, false);
  if (reads_tokens(leaving)) pools.add(leave, {"token"}, false);
  if (spec.exit.spent) pools.add(leave, {spec.state[0].name, *spec.exit.spent, "halted"}, false);
  return {{kEnter, enter}, {kStep, step}, {kLeave, leave}};
}

std::string move_file(const std::string& graph) { return "lines/" + graph + ".onnx"; }

std::string rows_file(const std::string& graph) { return graph + "_lines.onnx"; }

std::vector<std::string> device_files() {
  std::vector<std::string> files;
  for (const char* graph : {kEnter, kStep, kLeave}) files.push_back(rows_file(graph));
  for (const char* graph : {kTakeBytes, kPutBytes}) files.push_back(move_file(graph));
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace mythos
