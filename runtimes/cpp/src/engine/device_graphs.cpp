#include "engine/device_graphs.hpp"

#include <algorithm>
#include <cstring>

#include "line_ports.hpp"
#include "ports.hpp"
#include "row_ports.hpp"

namespace mythos::engine {
namespace {

constexpr std::size_t kMostFrames = 384;
constexpr const char* kSeen = "seen";

}  // namespace

DeviceGraphs::DeviceGraphs(std::shared_ptr<const LoopSpec> given, const OpenGraph& open, const LineGraphs& lines,
                           const Memory& memory, std::int64_t most)
    : Graphs(std::move(given), most), ports_(rows_on_lines(*spec)), device_(lines.device) {
  for (const char* graph : {kEnter, kStep, kLeave}) sessions_[graph] = open(graph);
  for (const CacheGroup& group : spec->caches)
    if (!group.per_loop) before_ = group.before;
  DeviceGraphs::bind(memory);
}

void DeviceGraphs::bind(const Memory& memory) {
  around_ = memory.around.get(), loop_ = memory.loop.get(), states_ = memory.states.get();
  frames_.clear();
  order_.clear();
}

Lines DeviceGraphs::enter(States& states, const std::vector<std::int64_t>& ids, const float* initial, const Spans& spans,
                          const Tables& tables) {
  const auto count = static_cast<std::int64_t>(ids.size());
  Lines lines = static_cast<DeviceStates&>(states).fresh(count);  // what `bind` was given
  try {
    Frame& call = frame(kEnter, spans, count);
    std::copy(lines.begin(), lines.end(), call.numbers.here<std::int64_t>("lines"));
    std::copy(ids.begin(), ids.end(), call.numbers.here<std::int64_t>("ids"));
    if (auto* const drawn = call.numbers.here<char>("initial"))
      std::memcpy(drawn, initial, static_cast<std::size_t>(count * states.array(spec->initial()->name).row_bytes));
    put_place(call, spans, tables);
    call.bound.run();
  } catch (...) {
    const Lines back(lines.rbegin(), lines.rend());
    states.end(back.begin(), back.end());
    throw;
  }
  return lines;
}

std::int64_t DeviceGraphs::step(States& states, const Lines& lines, const Spans& spans, const LoopTables& tables) {
  if (stepping_)
    throw BackendFailed("a step failed half-way, and left states on the device of no loop: open the engine again");
  Frame& call = frame(kStep, spans, static_cast<std::int64_t>(lines.size()));
  std::copy(lines.begin(), lines.end(), call.numbers.here<std::int64_t>("lines"));
  put_depths(spans, call.numbers.here<std::int64_t>("loop"));
  put_knobs(states, lines, spans, call.numbers.here<bool>("last"), call.numbers.here<float>("halt_threshold"));
  put_place(call, spans, tables[0]);
  stepping_ = true;
  call.bound.run();
  stepping_ = false;
  static_cast<DeviceStates&>(states).saw(lines, call.numbers.here<std::int32_t>(kSeen));
  return 1;
}

const float* DeviceGraphs::leave(States&, const Lines& lines, const std::vector<bool>& early,
                                 const std::vector<std::int64_t>& pick, const Spans& spans, const Tables& tables) {
  const auto values = static_cast<std::size_t>(most_rows * spec->vocab_size);
  logits_.resize(values);  // of always as many, for what is bound stays where it is
  Frame& call = frame(kLeave, spans, static_cast<std::int64_t>(lines.size()), static_cast<std::int64_t>(pick.size()));
  std::copy(lines.begin(), lines.end(), call.numbers.here<std::int64_t>("lines"));
  std::copy(pick.begin(), pick.end(), call.numbers.here<std::int64_t>("pick"));
  if (auto* const leaves = call.numbers.here<bool>("early")) std::copy(early.begin(), early.end(), leaves);
  put_place(call, spans, tables);
  call.bound.run();
  return logits_.data();
}

void DeviceGraphs::put_place(Frame& call, const Spans& spans, const Tables& tables) const {
  if (call.numbers.has("tables"))
    engine::put_place(spans, tables, blocks_of(spans), call.numbers.here<std::int64_t>("position"),
                      call.numbers.here<std::int64_t>("span"), call.numbers.here<std::int64_t>("tables"));
}

// -- frames --------------------------------------------------------------------------------------------------------------

DeviceGraphs::Frame& DeviceGraphs::frame(const std::string& graph, const Spans& spans, std::int64_t rows, std::int64_t wanted) {
  const auto& inputs = ports_.at(graph).inputs;
  const bool paged = std::any_of(inputs.begin(), inputs.end(), [](const Port& port) { return port.role == "cache"; });
  const Key key{graph, rows, paged ? blocks_of(spans) : 0, wanted};
  auto found = frames_.find(key);
  if (found == frames_.end()) {
    if (frames_.size() >= kMostFrames) {  // the one that was used longest ago goes
      frames_.erase(order_.front());
      order_.erase(order_.begin());
    }
    found = frames_.emplace(key, make(key)).first;
  } else {
    order_.erase(std::find(order_.begin(), order_.end(), key));
  }
  order_.push_back(key);
  return found->second;
}

DeviceGraphs::Frame DeviceGraphs::make(const Key& key) {
  const auto& [graph, rows, blocks, wanted] = key;
  const Ports& ports = ports_.at(graph);
  const PagedCache* pages = graph == kStep ? loop_ : around_;
  const Symbols symbols{{"R", rows},   {"S", rows}, {"K", blocks},
                        {"W", wanted}, {"L", states_->lines()}, {"G", pages ? pages->pages() : 0}};
  Addresses there, host;
  Numbers::Sizes sizes;
  const auto number = [&](const Port& port) {
    auto bytes = static_cast<std::int64_t>(dtype_size(port.dtype));
    for (const std::int64_t size : shape_of(port, symbols)) bytes *= size;
    sizes.emplace_back(port.role, bytes);
  };
  std::int64_t slot = graph == kLeave ? before_ : 0;
  for (const Port& port : ports.inputs) {
    if (port.role == "cache")
      there[port.name] = there[port.name + "_next"] = pages->slot(slot++);
    else if (port.role == "pool")
      there[port.name] = there[port.name + "_next"] = states_->array(port.group).memory->data();
    else
      number(port);
  }
  for (const Port& port : ports.outputs) {
    if (port.role == kSeen) number(port);
    if (port.role == "logits") host[port.name] = reinterpret_cast<char*>(logits_.data());
  }
  Numbers numbers(sizes);
  for (const auto* side : {&ports.inputs, &ports.outputs})
    for (const Port& port : *side)
      if (numbers.has(port.role)) host[port.name] = numbers.here<char>(port.role);
  Bound bound(device_, sessions_.at(graph), ports, there, host, symbols);
  return {std::move(numbers), std::move(bound)};
}

}  // namespace mythos::engine
