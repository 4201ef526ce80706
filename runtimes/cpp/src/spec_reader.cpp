// A spec from the manifest, field by field (spec_reader.py).
#include <algorithm>

#include "ports.hpp"
#include "spec.hpp"

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

}  // namespace

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
