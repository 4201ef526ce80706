#include "line_ports.hpp"

namespace mythos {
namespace {

const Dim kLines{0, "L"}, kRows{0, "R"}, kBytes{0, "B"};

std::vector<Dim> behind(const Dim& first, const StateTensor& tensor) {
  std::vector<Dim> dims{first};
  for (const Dim& dim : tensor.dims)
    if (dim.symbol.empty()) dims.push_back(dim);
  return dims;
}

}  // namespace

std::map<std::string, Ports> line_ports(const LoopSpec& spec) {
  std::vector<StateTensor> kept = spec.state;
  kept.push_back(spec.state[0]);
  kept.back().name = "encoded";
  kept.push_back({"token", "int64", {{0, "B"}, {0, "T"}}, "", {}, {}});
  const Port lines{"lines", "int64", {kRows}, "lines", ""};
  Ports take{{lines}, {}}, put{{lines}, {}};
  for (const StateTensor& tensor : kept) {
    take.outputs.push_back({tensor.name, tensor.dtype, behind(kRows, tensor), "row", tensor.name});
    put.inputs.push_back(take.outputs.back());
  }
  for (const StateTensor& tensor : kept) {
    const Port pool{tensor.name + "_pool", tensor.dtype, behind(kLines, tensor), "pool", tensor.name};
    take.inputs.push_back(pool);
    put.inputs.push_back(pool);
    put.outputs.push_back({pool.name + "_next", pool.dtype, pool.dims, "pool_next", tensor.name});
  }
  const Port pool{"pool", "int8", {kLines, kBytes}, "pool", ""}, rows{"rows", "int8", {kRows, kBytes}, "row", ""};
  std::map<std::string, Ports> graphs{
      {kTake, take},
      {kPut, put},
      {kTakeBytes, {{lines, pool}, {rows}}},
      {kPutBytes, {{lines, rows, pool}, {{"pool_next", "int8", pool.dims, "pool_next", ""}}}},
      {kCross, {{{"bytes", "int8", {kBytes}, "bytes", ""}}, {{"crossed", "int8", {kBytes}, "crossed", ""}}}}};
  if (spec.exit.spent) {
    const auto row = [&](const std::string& name) {
      for (const Port& port : take.outputs)
        if (port.name == name) return port;
      return Port{};  // not of a spec whose exit rule fits its states
    };
    const Port answer = row(spec.state[1].name);
    const Port early{"early", "bool", {kRows}, "early", ""};
    graphs[kRest] = {{answer, row(spec.state[0].name), row(*spec.exit.spent), row("halted"), early},
                     {{"answered", answer.dtype, answer.dims, "answered", ""}}};
  }
  return graphs;
}

std::string line_file(const std::string& graph) { return "lines/" + graph + ".onnx"; }

}  // namespace mythos
