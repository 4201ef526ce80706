#include "spec.hpp"

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <tuple>

#include "ports.hpp"
#include "row_ports.hpp"

namespace mythos {
namespace {

constexpr std::int64_t kMost = (std::int64_t{1} << 31) - 1;  // of any single size: sums and products of a few fit 64 bits
const std::vector<std::string> kDtypes{"bool", "int8", "int32", "int64", "float16", "bfloat16", "float32"};
const std::vector<std::string> kCacheDtypes{"float32", "float16", "bfloat16"};
const std::vector<std::string> kInputRoles{
    "ids",  "positions", "past_lengths", "max_loops", "halt_threshold", "early_exit", "initial_state", "position", "span",
    "tables", "cache",   "encoded",      "state",     "loop",           "last",       "answer",        "pick",     "past"};
const std::vector<std::string> kOutputRoles{"logits", "depth", "loops", "encoded", "state_next", "cache_next", "new"};
const std::vector<std::string> kStarts{"zeros", "ones", "encoded", "initial", "noise"};
const std::vector<std::string> kSymbols{"B", "T", "P", "N", "R", "S", "K", "G", "W"};
const std::vector<std::string> kKinds{"value", "choice", "chosen", "halted", "count"};

std::vector<Dim> dims_of(Fields& fields) {
  std::vector<Dim> dims;
  for (const Json& dim : fields.listed("dims")) {
    std::int64_t size = 0;
    if (dim.as_int64(size) && size >= 0 && size <= kMost)
      dims.push_back({size, ""});
    else if (dim.kind == Json::Kind::text && std::count(kSymbols.begin(), kSymbols.end(), dim.text))
      dims.push_back({0, dim.text});
    else
      throw fields.fail("dims", "a list of sizes and of the symbols B, T, P, N, R, S, K, G, W", dim);
  }
  return dims;
}

Ports ports_of(Fields fields) {
  Ports ports;
  const auto read = [&](const char* side, const std::vector<std::string>& roles, std::vector<Port>& into) {
    fields.each(side, [&](Fields item) {
      Port port;
      port.name = item.text("name");
      port.dtype = item.choice("dtype", kDtypes);
      port.dims = dims_of(item);
      port.role = item.choice("role", roles);
      port.group = item.optional_text("group").value_or("");
      item.done();
      into.push_back(std::move(port));
    });
  };
  read("inputs", kInputRoles, ports.inputs);
  read("outputs", kOutputRoles, ports.outputs);
  fields.done();
  return ports;
}

// Widths of parts; a field that caches lack whose lines are not rounded.
std::vector<std::int64_t> rounded_of(Fields& fields) {
  std::vector<std::int64_t> widths;
  const Json* found = fields.peek("rounded");
  if (!found) return widths;
  if (found->kind == Json::Kind::null) {
    fields.take("rounded");
    return widths;
  }
  if (fields.listed("rounded").empty()) throw fields.fail("rounded", "a list of one size or more", *found);
  for (const Json& width : found->items) {
    widths.push_back(0);
    if (!width.as_int64(widths.back()) || widths.back() < 1 || widths.back() > kMost)
      throw fields.fail("rounded", "a list of sizes from 1 to " + std::to_string(kMost), width);
  }
  return widths;
}

CacheGroup cache_of(Fields fields) {
  CacheGroup group;
  group.name = fields.text("name");
  group.slots = fields.integer("slots", 1, kMost);
  group.per_loop = fields.boolean("per_loop");
  group.width = fields.integer("width", 1, kMost);
  group.dtype = fields.choice("dtype", kCacheDtypes);
  group.before = fields.integer("before", 0, kMost);
  group.rounded = rounded_of(fields);
  fields.done();
  return group;
}

StateTensor state_of(Fields fields) {
  StateTensor state;
  state.name = fields.text("name");
  state.dtype = fields.choice("dtype", kDtypes);
  state.dims = dims_of(fields);
  state.start = fields.choice("start", kStarts);
  state.scale = fields.optional_number("scale");
  state.cut = fields.optional_number("cut");
  fields.done();
  return state;
}

ExitRule exit_of(Fields fields) {
  ExitRule rule;
  rule.name = fields.text("name");
  rule.meaning = fields.text("meaning");
  fields.each("knobs", [&](Fields item) {
    Knob knob;
    knob.name = item.text("name");
    knob.default_value = item.number("default");
    knob.least = item.optional_number("least");
    knob.most = item.optional_number("most");
    knob.meaning = item.text("meaning");
    item.done();
    rule.knobs.push_back(std::move(knob));
  });
  rule.spent = fields.optional_text("spent");
  fields.done();
  return rule;
}

TraceTensor trace_of(Fields fields) {
  TraceTensor tensor;
  tensor.name = fields.text("name");
  tensor.dtype = fields.choice("dtype", kDtypes);
  tensor.dims = dims_of(fields);
  tensor.kind = fields.choice("kind", kKinds);
  tensor.until_halted = fields.boolean("until_halted");
  tensor.unit = fields.boolean("unit");
  tensor.of = fields.optional_text("of").value_or("");
  fields.done();
  return tensor;
}

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

// What of a spec does not go together; the same words as in Python (spec_reader.py).
std::string contradiction_of(const LoopSpec& spec) {
  for (const auto part : {contradiction_of_names, contradiction_of_caches, contradiction_of_state, contradiction_of_exit,
                          contradiction_of_trace})
    if (const std::string problem = part(spec); !problem.empty()) return problem;
  const Ports want = model_ports(spec.vocab_size, spec.caches, spec.exit, spec.initial());
  const std::string problem = contradiction_of(want, spec.ports());
  return problem.empty() ? contradiction_of_rows(spec) : problem;
}

}  // namespace

std::string contradiction_of(const Ports& expected, const Ports& found) {
  const std::string inputs = contradiction_of("inputs", expected.inputs, found.inputs);
  return inputs.empty() ? contradiction_of("outputs", expected.outputs, found.outputs) : inputs;
}

bool Port::operator==(const Port& o) const {
  return name == o.name && dtype == o.dtype && dims == o.dims && role == o.role && group == o.group;
}

std::string Port::words() const {
  std::string text = name + " " + dtype + " [";
  for (std::size_t i = 0; i < dims.size(); ++i) text += (i ? ", " : "") + dims[i].words();
  return text + "]";
}

const Port& Ports::of(const std::string& role, const std::string& group) const {
  for (const auto* side : {&inputs, &outputs})
    for (const Port& port : *side)
      if (port.role == role && port.group == group) return port;
  throw std::out_of_range(role);
}

const Knob* ExitRule::knob(const std::string& wanted) const {
  for (const Knob& each : knobs)
    if (each.name == wanted) return &each;
  return nullptr;
}

const StateTensor* LoopSpec::initial() const {
  for (const StateTensor& tensor : state)
    if (tensor.start == "noise") return &tensor;
  return nullptr;
}

// Ports do not say which lines are rounded.
bool LoopSpec::fits(const LoopSpec& o) const {
  const auto lines = [](const CacheGroup& group) {
    return std::tie(group.name, group.slots, group.per_loop, group.width, group.dtype, group.before, group.rounded);
  };
  const auto same = [&](const CacheGroup& a, const CacheGroup& b) { return lines(a) == lines(b); };
  return this == &o ||
         (family == o.family && max_seq_len == o.max_seq_len && trained_loops == o.trained_loops &&
          std::equal(caches.begin(), caches.end(), o.caches.begin(), o.caches.end(), same) &&
          ports().inputs == o.ports().inputs && ports().outputs == o.ports().outputs);
}

Ports model_ports(std::int64_t vocab_size, const std::vector<CacheGroup>& caches, const ExitRule& exit,
                  const StateTensor* initial) {
  const Dim B{0, "B"}, T{0, "T"}, P{0, "P"};
  Ports ports{{{"input_ids", "int64", {B, T}, "ids", ""},
               {"positions", "int64", {B, T}, "positions", ""},
               {"past_lengths", "int64", {B}, "past_lengths", ""},
               {"max_loops", "int64", {}, "max_loops", ""}},
              {{"logits", "float32", {B, T, {vocab_size, ""}}, "logits", ""},
               {"depth", "int32", {B, T}, "depth", ""},
               {"loops", "int64", {}, "loops", ""}}};
  if (exit.knob("halt_threshold")) ports.inputs.push_back({"halt_threshold", "float32", {}, "halt_threshold", ""});
  ports.inputs.push_back({"early_exit", "bool", {}, "early_exit", ""});
  if (initial) ports.inputs.push_back({"initial_state", initial->dtype, initial->dims, "initial_state", ""});
  for (const CacheGroup& group : caches) {
    std::vector<Dim> lines;
    if (group.per_loop) lines.push_back({0, "N"});
    if (!group.per_loop || group.slots > 1) lines.push_back({group.slots, ""});
    std::vector<Dim> past = lines, fresh = std::move(lines);
    for (const Dim& dim : {B, P, Dim{group.width, ""}}) past.push_back(dim);
    for (const Dim& dim : {B, T, Dim{group.width, ""}}) fresh.push_back(dim);
    ports.inputs.push_back({"past_" + group.name, group.dtype, past, "past", group.name});
    ports.outputs.push_back({"new_" + group.name, group.dtype, fresh, "new", group.name});
  }
  return ports;
}

LoopSpec read_spec(Fields fields) {
  Fields graphs = fields.inner("graphs");
  const auto size = [&](const char* name) { return fields.integer(name, 1, kMost); };
  LoopSpec spec;
  spec.family = fields.text("family");
  spec.vocab_size = size("vocab_size");
  spec.max_seq_len = size("max_seq_len");
  spec.max_output_tokens = size("max_output_tokens");
  spec.trained_loops = size("trained_loops");
  fields.each("caches", [&](Fields item) { spec.caches.push_back(cache_of(std::move(item))); });
  fields.each("state", [&](Fields item) { spec.state.push_back(state_of(std::move(item))); });
  spec.exit = exit_of(fields.inner("exit"));
  fields.each("trace", [&](Fields item) { spec.trace.push_back(trace_of(std::move(item))); });
  for (const std::string& name : graphs.names()) spec.graphs[name] = ports_of(graphs.inner(name));
  fields.done();
  if (!spec.graphs.count("model")) {
    Json names;
    names.kind = Json::Kind::list;
    for (const auto& [name, ports] : spec.graphs) {
      names.items.emplace_back();
      names.items.back().kind = Json::Kind::text;
      names.items.back().text = name;
    }
    throw fields.fail("graphs", "an object with the graph model", names);
  }
  const std::string problem = contradiction_of(spec);
  if (!problem.empty())
    throw BundleError(fields.where() + ": the spec does not hold together: " + problem + "; export the model again");
  return spec;
}

}  // namespace mythos
