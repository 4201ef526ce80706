// What of a spec does not go together, in the same words as in Python (spec_reader.py).
#include <algorithm>
#include <numeric>

#include "row_ports.hpp"
#include "spec.hpp"

namespace mythos {
namespace {

std::string contradiction_of(const std::string& side, const std::vector<Port>& expected, const std::vector<Port>& found) {
  const auto has = [](const std::vector<Port>& ports, const Port& port) {
    return std::find(ports.begin(), ports.end(), port) != ports.end();
  };
  for (const Port& port : expected) {
    if (has(found, port)) continue;
    const auto other = std::find_if(found.begin(), found.end(), [&](const Port& each) {
      return each.role == port.role && each.group == port.group;
    });
    return "the " + side + " lack " + port.words() + (other == found.end() ? "" : " and hold " + other->words() + " instead");
  }
  for (const Port& port : found)
    if (!has(expected, port)) return "the " + side + " hold " + port.words() + ", which this runtime does not know";
  if (expected == found) return "";
  std::string names;
  for (const Port& port : found) names += (names.empty() ? "" : ", ") + port.name;
  return "the " + side + " are in another order: " + names;
}

template <class T>
std::string named_twice(const char* what, const std::vector<T>& parts) {
  for (std::size_t i = 0; i < parts.size(); ++i)
    for (std::size_t j = 0; j < parts.size(); ++j)
      if (i != j && parts[i].name == parts[j].name) return std::string("two ") + what + " are called " + parts[i].name;
  return "";
}

std::string contradiction_of_names(const LoopSpec& spec) {
  std::string problem = named_twice("caches", spec.caches);
  if (problem.empty()) problem = named_twice("states", spec.state);
  if (problem.empty()) problem = named_twice("knobs", spec.exit.knobs);
  if (problem.empty()) problem = named_twice("tensors of the trace", spec.trace);
  if (!problem.empty()) return problem;
  for (const StateTensor& tensor : spec.state)
    if (tensor.name == "encoded" || tensor.name == "token")
      return "a state is called " + tensor.name + ", as what is kept beside the states";
  return "";
}

std::string contradiction_of_caches(const LoopSpec& spec) {
  const auto inside = std::count_if(spec.caches.begin(), spec.caches.end(), [](const CacheGroup& g) { return g.per_loop; });
  const auto around = static_cast<std::ptrdiff_t>(spec.caches.size()) - inside;
  if (inside != 1 || around > 1)
    return "there are " + std::to_string(inside) + " caches inside the loop and " + std::to_string(around) +
           " around it, expected one and at most one";
  for (const CacheGroup& group : spec.caches) {
    if (group.before > (group.per_loop ? 0 : group.slots))
      return "the cache " + group.name + " fills " + std::to_string(group.before) + " of its " +
             std::to_string(group.slots) + " slots before the loop";
    if (group.rounded.empty()) continue;
    const std::int64_t parts = std::accumulate(group.rounded.begin(), group.rounded.end(), std::int64_t{0});
    if (group.dtype != "float32" || parts != group.width)
      return "the cache " + group.name + " rounds parts of " + std::to_string(parts) + " values in all, where a line is " +
             std::to_string(group.width) + " values of " + group.dtype + ", expected float32 and all of them";
  }
  return "";
}

bool is_per_token(const std::vector<Dim>& dims) {
  return dims.size() >= 2 && dims[0].symbol == "B" && dims[1].symbol == "T";
}

std::string contradiction_of_state(const LoopSpec& spec) {
  if (spec.state.size() < 2) return "the loop carries fewer than two states";
  std::vector<const StateTensor*> drawn;
  for (const StateTensor& tensor : spec.state)
    if (tensor.start == "noise") drawn.push_back(&tensor);
  if (drawn.size() > 1) return "the states " + drawn[0]->name + " and " + drawn[1]->name + " are both drawn";
  if (!drawn.empty()) {
    const StateTensor& one = *drawn[0];
    if (one.dtype != "float32" || one.dims.size() != 3 || !is_per_token(one.dims) || !one.dims[2].symbol.empty())
      return "the state " + Port{one.name, one.dtype, one.dims, "", ""}.words() +
             " is drawn, which only one of float32 [B, T, size] can be";
  }
  const StateTensor& first = spec.state[0];
  for (std::size_t i = 0; i < spec.state.size(); ++i) {
    const StateTensor& tensor = spec.state[i];
    const bool sized = is_per_token(tensor.dims) && std::all_of(tensor.dims.begin() + 2, tensor.dims.end(),
                                                                [](const Dim& dim) { return dim.symbol.empty(); });
    if (!sized) return "the state " + tensor.name + " is not one of [B, T, sizes]";
    const bool wide = i < 2 || tensor.start == "encoded" || tensor.start == "initial" || tensor.start == "noise";
    if (wide && (tensor.dtype != "float32" || tensor.dims != first.dims))
      return "the state " + tensor.name + " is not float32 of the size of " + first.name;
    if (tensor.start == "initial" && drawn.empty())
      return "the state " + tensor.name + " begins with noise that none is";
  }
  const auto carries = [&](const char* name, const char* dtype) {
    return std::any_of(spec.state.begin(), spec.state.end(), [&](const StateTensor& tensor) {
      return tensor.name == name && tensor.dtype == dtype && tensor.dims.size() == 2;
    });
  };
  if (!carries("halted", "bool") || !carries("depth", "int32"))
    return "the loop does not carry halted bool and depth int32";
  return "";
}

std::string contradiction_of_exit(const LoopSpec& spec) {
  const auto& spent = spec.exit.spent;
  if (spent && std::none_of(spec.state.begin(), spec.state.end(), [&](const StateTensor& each) {
        return each.name == *spent && each.dtype == "float32";
      }))
    return "the exit rule sums its weights in " + *spent + ", which is no float32 state";
  for (const Knob& knob : spec.exit.knobs)
    if ((knob.least && knob.default_value < *knob.least) || (knob.most && knob.default_value > *knob.most))
      return "the knob " + knob.name + " is outside of its own range";
  return "";
}

std::string contradiction_of_trace(const LoopSpec& spec) {
  for (const TraceTensor& tensor : spec.trace) {
    if (!is_per_token(tensor.dims)) return "the tensor " + tensor.name + " of the trace is not one of [B, T, sizes]";
    const auto other = std::find_if(spec.trace.begin(), spec.trace.end(),
                                    [&](const TraceTensor& each) { return each.name == tensor.of; });
    const std::string of = tensor.of.empty() ? "" : other == spec.trace.end() ? "nothing" : other->kind;
    const bool right = tensor.kind == "chosen"   ? of == "choice"
                       : tensor.kind == "halted" ? of.empty() || of == "value"
                                                 : of.empty();
    const auto words = [](const std::string& text) { return text.empty() ? "None" : text; };
    if (!right)
      return "the tensor " + tensor.name + " of the trace is " + tensor.kind + " of " + words(tensor.of) + ", which is " +
             words(of);
  }
  return "";
}

// The row graphs: a bundle has all of them or none.
std::string contradiction_of_rows(const LoopSpec& spec) {
  if (spec.graphs.size() == 1) return "";
  if (spec.graphs.size() != 4 || !spec.graphs.count(kEnter) || !spec.graphs.count(kStep) || !spec.graphs.count(kLeave)) {
    std::string given = "model";
    for (const auto& [name, ports] : spec.graphs)
      if (name != "model") given += ", " + name;
    return "the graphs are " + given + ", expected model, enter, step, leave";
  }
  return row_contradiction(spec);
}

}  // namespace

std::string contradiction_of(const Ports& expected, const Ports& found) {
  const std::string inputs = contradiction_of("inputs", expected.inputs, found.inputs);
  return inputs.empty() ? contradiction_of("outputs", expected.outputs, found.outputs) : inputs;
}

std::string contradiction_of(const LoopSpec& spec) {
  for (const auto part : {contradiction_of_names, contradiction_of_caches, contradiction_of_state, contradiction_of_exit,
                          contradiction_of_trace})
    if (const std::string problem = part(spec); !problem.empty()) return problem;
  const Ports want = model_ports(spec.vocab_size, spec.caches, spec.exit, spec.initial());
  const std::string problem = contradiction_of(want, spec.ports());
  return problem.empty() ? contradiction_of_rows(spec) : problem;
}

}  // namespace mythos
