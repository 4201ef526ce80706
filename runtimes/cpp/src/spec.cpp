#include "spec.hpp"

#include <algorithm>
#include <stdexcept>
#include <tuple>

namespace mythos {

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

}  // namespace mythos
