#include "ports.hpp"

namespace mythos {

std::string Port::words() const {
  std::string text = name + " " + dtype + " [";
  for (std::size_t i = 0; i < dims.size(); ++i)
    text += (i ? ", " : "") + (dims[i].symbol.empty() ? std::to_string(dims[i].size) : dims[i].symbol);
  return text + "]";
}

Ports model_ports(const RuntimeConfig& config) {
  const Dim B{0, "B"}, T{0, "T"}, P{0, "P"}, N{0, "N"};
  const Dim L{config.layers, ""}, C{config.cache_width, ""}, V{config.vocab_size, ""};
  const std::string& kv = config.cache_dtype;
  return {{{"input_ids", "int64", {B, T}},
           {"positions", "int64", {B, T}},
           {"past_lengths", "int64", {B}},
           {"max_loops", "int64", {}},
           {"halt_threshold", "float32", {}},
           {"early_exit", "bool", {}},
           {"past_layers", kv, {L, B, P, C}},
           {"past_loop", kv, {N, B, P, C}}},
          {{"logits", "float32", {B, T, V}},
           {"depth", "int32", {B, T}},
           {"loops", "int64", {}},
           {"new_layers", kv, {L, B, T, C}},
           {"new_loop", kv, {N, B, T, C}}}};
}

namespace {

const Port* find(const std::vector<Port>& ports, const std::string& name) {
  const Port* found = nullptr;  // the last of a name counts, as in a Python dict
  for (const Port& port : ports)
    if (port.name == name) found = &port;
  return found;
}

std::string difference(const char* side, const std::vector<Port>& expected, const std::vector<Port>& found) {
  for (const Port& port : expected)
    if (!find(found, port.name)) return std::string("the ") + side + " lack " + port.words();
  for (const Port& each : found) {
    const Port& port = *find(found, each.name);
    const Port* want = find(expected, port.name);
    const std::string holds = std::string("the ") + side + " hold " + port.words();
    if (!want) return holds + ", which this runtime does not know";
    if (port.dtype != want->dtype || port.dims != want->dims) return holds + " where " + want->words() + " is expected";
  }
  return "";
}

}  // namespace

std::string first_difference(const Ports& expected, const Ports& found) {
  const std::string inputs = difference("inputs", expected.inputs, found.inputs);
  return inputs.empty() ? difference("outputs", expected.outputs, found.outputs) : inputs;
}

std::size_t dtype_size(const std::string& dtype) {
  if (dtype == "bool") return 1;
  if (dtype == "float16" || dtype == "bfloat16") return 2;
  return dtype == "int64" ? 8 : 4;
}

std::string list_in_words(const std::vector<std::int64_t>& values) {
  std::string text = "[";
  for (std::size_t i = 0; i < values.size(); ++i) text += (i ? ", " : "") + std::to_string(values[i]);
  return text + "]";
}

void check_outputs(const std::vector<Port>& ports, const std::vector<Tensor>& arrays,
                   std::map<std::string, std::int64_t> symbols) {
  for (std::size_t i = 0; i < ports.size(); ++i) {
    const Port& port = ports[i];
    const Tensor& array = arrays.at(i);
    const std::string start = "the engine's output " + port.name + " ";
    if (array.dtype != port.dtype) throw ResultError(start + "is " + array.dtype + ", expected " + port.words());
    const std::string shape = start + "has shape " + list_in_words(array.shape) + ", expected " + port.words();
    if (array.shape.size() != port.dims.size()) throw ResultError(shape);
    for (std::size_t d = 0; d < port.dims.size(); ++d) {
      const std::int64_t want = port.dims[d].symbol.empty() ? port.dims[d].size : symbols.at(port.dims[d].symbol);
      if (array.shape[d] == want) continue;
      std::string known;
      for (const char* name : {"B", "T", "N"})
        for (const Dim& dim : port.dims)
          if (dim.symbol == name)
            known += (known.empty() ? "'" : ", '") + std::string(name) + "': " + std::to_string(symbols.at(name));
      throw ResultError(shape + " with {" + known + "}");
    }
  }
}

}  // namespace mythos
