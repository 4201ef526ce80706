#include "row_ports.hpp"

#include <algorithm>

#include "mythos_runtime.hpp"
#include "spec.hpp"

namespace mythos {
namespace {

const Dim kRows{0, "R"}, kAnswers{0, "W"};

// Of a row, by dims (B, T, ...).
std::vector<Dim> row_dims(const StateTensor& tensor) {
  std::vector<Dim> dims{kRows};
  dims.insert(dims.end(), tensor.dims.begin() + 2, tensor.dims.end());
  return dims;
}

// With the ports of its cache, where it has layers.
Ports part(Ports ports, const CacheGroup* group, std::int64_t first, std::int64_t last) {
  if (!group || first >= last) return ports;
  ports.inputs.push_back({"position", "int64", {kRows}, "position", ""});
  ports.inputs.push_back({"span", "int64", {kRows}, "span", ""});
  ports.inputs.push_back({"tables", "int64", {{0, "S"}, {0, "K"}}, "tables", ""});
  const std::vector<Dim> pages{{0, "G"}, {kPage, ""}, {group->page_width(), ""}};
  for (std::int64_t slot = first; slot < last; ++slot) {
    const std::string name = "cache_" + std::to_string(slot);
    ports.inputs.push_back({name, group->page_dtype(), pages, "cache", group->name});
    ports.outputs.push_back({name + "_next", group->page_dtype(), pages, "cache_next", group->name});
  }
  return ports;
}

bool is_row(const StateTensor& tensor) {
  return tensor.dims.size() >= 2 && tensor.dims[0].symbol == "B" && tensor.dims[1].symbol == "T" &&
         std::all_of(tensor.dims.begin() + 2, tensor.dims.end(), [](const Dim& dim) { return dim.symbol.empty(); });
}

}  // namespace

std::map<std::string, Ports> row_ports(const LoopSpec& spec) {
  const CacheGroup *around = nullptr, *inside = nullptr;
  for (const CacheGroup& group : spec.caches) (group.per_loop ? inside : around) = &group;
  if (!inside) throw RequestError("there is no cache inside the loop");
  if (spec.state.size() < 2) throw RequestError("the loop carries fewer than two states");
  for (const StateTensor& tensor : spec.state)
    if (!is_row(tensor)) throw RequestError("the state " + tensor.name + " is not one of [B, T, sizes]");
  const std::vector<Dim> rows = row_dims(spec.state[0]);
  const Port encoded{"encoded", "float32", rows, "encoded", ""}, ids{"input_ids", "int64", {kRows}, "ids", ""};
  const auto given = spec.graphs.find(kStep);
  const bool reads_tokens = given != spec.graphs.end() &&  // whether layers in the loop and behind it do, too
                            std::count(given->second.inputs.begin(), given->second.inputs.end(), ids) > 0;
  Ports enter{{ids}, {encoded}};
  Ports step{{encoded}, {}};
  if (reads_tokens) step.inputs.push_back(ids);
  for (const StateTensor& tensor : spec.state) {
    step.inputs.push_back({tensor.name, tensor.dtype, row_dims(tensor), "state", tensor.name});
    step.outputs.push_back({tensor.name + "_next", tensor.dtype, row_dims(tensor), "state_next", tensor.name});
  }
  step.inputs.push_back({"loop", "int64", {kRows}, "loop", ""});
  step.inputs.push_back({"last", "bool", {kRows}, "last", ""});
  if (spec.exit.knob("halt_threshold"))
    step.inputs.push_back({"halt_threshold", "float32", {kRows}, "halt_threshold", ""});
  Ports leave{{{"answer", "float32", rows, "answer", spec.state[1].name}, {"pick", "int64", {kAnswers}, "pick", ""}},
              {{"logits", "float32", {kAnswers, {spec.vocab_size, ""}}, "logits", ""}}};
  const std::int64_t before = around ? around->before : 0, slots = around ? around->slots : 0;
  if (reads_tokens && slots > before) leave.inputs.push_back(ids);
  return {{kEnter, part(enter, around, 0, before)},
          {kStep, part(step, inside, 0, inside->slots)},
          {kLeave, part(leave, around, before, slots)}};
}

Ports loop_ports(const Ports& step) {
  Ports ports{{{"loops", "int64", {}, "loops", ""}, {"spans", "int64", {}, "spans", ""}, {"stops", "bool", {kRows}, "stops", ""}}, {}};
  for (Port port : step.inputs) {
    if (port.role == "last" || port.role == "halt_threshold") port.dims.insert(port.dims.begin(), {0, "L"});
    if (port.role == "tables") port.dims[0] = {0, "T"};
    ports.inputs.push_back(std::move(port));
  }
  for (const Port& port : step.outputs)
    if (port.role != "cache_next") ports.outputs.push_back(port);
  ports.outputs.push_back({"ran", "int64", {}, "ran", ""});
  return ports;
}

std::string row_contradiction(const LoopSpec& spec) {
  const auto state = [&](const char* name, const char* dtype) {
    return std::any_of(spec.state.begin(), spec.state.end(), [&](const StateTensor& tensor) {
      return tensor.name == name && tensor.dtype == dtype && tensor.dims.size() == 2;
    });
  };
  try {
    std::size_t ports = 0;
    for (const char* name : {kEnter, kStep, kLeave}) ports += spec.graphs.at(name).inputs.size();
    for (const CacheGroup& group : spec.caches)
      if (group.slots > static_cast<std::int64_t>(ports))
        return "the cache " + group.name + " has " + std::to_string(group.slots) + " slots, for which there are no ports";
    const auto wanted = row_ports(spec);
    for (const auto& [name, ports] : wanted)
      if (const std::string problem = contradiction_of(ports, spec.graphs.at(name)); !problem.empty())
        return name + ": " + problem;
  } catch (const RequestError& error) {
    return error.what();
  }
  for (const StateTensor& tensor : spec.state) {
    const bool wide = tensor.start == "encoded" || tensor.start == "initial" || tensor.start == "noise" ||
                      &tensor == &spec.state[0] || &tensor == &spec.state[1];
    if (wide && (tensor.dtype != "float32" || tensor.dims != spec.state[0].dims))
      return "the state " + tensor.name + " is not float32 of the size of " + spec.state[0].name;
    if ((tensor.start == "initial") && !spec.initial()) return "the state " + tensor.name + " begins with noise that none is";
  }
  if (spec.exit.spent && !state(spec.exit.spent->c_str(), "float32"))
    return "the exit rule sums its weights in " + *spec.exit.spent + ", which is no float32 state of one value";
  if (!state("halted", "bool") || !state("depth", "int32")) return "the loop does not carry halted bool and depth int32";
  return "";
}

}  // namespace mythos
