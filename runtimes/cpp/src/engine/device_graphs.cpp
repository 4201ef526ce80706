#include "engine/device_graphs.hpp"

#include <algorithm>
#include <array>

#include "ports.hpp"
#include "row_ports.hpp"

namespace mythos::engine {
namespace {

constexpr std::size_t kMostFrames = 384;
constexpr std::array<const char*, 8> kNumbered{"position", "span", "tables", "loop", "last", "halt_threshold", "pick", "ids"};

}  // namespace

DeviceGraphs::DeviceGraphs(std::shared_ptr<const LoopSpec> given, const OpenGraph& open, std::shared_ptr<LineGraphs> lines,
                           const Memory& memory, std::int64_t most)
    : Graphs(std::move(given), most), lines_(std::move(lines)), encoded_(lines_->batch(kEncoded)) {
  for (const char* graph : {kEnter, kStep, kLeave}) sessions_[graph] = open(graph);
  for (const CacheGroup& group : spec->caches)
    if (!group.per_loop) before_ = group.before;
  halted_.resize(static_cast<std::size_t>(lines_->most_rows));
  depth_.resize(static_cast<std::size_t>(lines_->most_rows));
  DeviceGraphs::bind(memory);
}

void DeviceGraphs::bind(const Memory& memory) {
  around_ = memory.around.get(), loop_ = memory.loop.get(), states_ = memory.states.get();
  frames_.clear();
  order_.clear();
}

const float* DeviceGraphs::enter(const std::vector<std::int64_t>& ids, const Spans& spans, const Tables& tables) {
  Frame& call = frame(kEnter, spans, static_cast<std::int64_t>(ids.size()));
  std::copy(ids.begin(), ids.end(), call.numbers.here<std::int64_t>("ids"));
  put_place(call, spans, tables);
  call.run();
  return reinterpret_cast<const float*>(encoded_.get());
}

std::int64_t DeviceGraphs::step(States& states, const Lines& lines, const Spans& spans, const LoopTables& tables) {
  Frame& call = frame(kStep, spans, static_cast<std::int64_t>(lines.size()));
  std::copy(lines.begin(), lines.end(), call.numbers.here<std::int64_t>("lines"));
  put_depths(spans, call.numbers.here<std::int64_t>("loop"));
  put_knobs(states, lines, spans, call.numbers.here<bool>("last"), call.numbers.here<float>("halt_threshold"));
  put_place(call, spans, tables[0]);
  call.run();
  const auto rows = static_cast<std::int64_t>(lines.size());
  OrtDevice& device = *lines_->device;
  device.download(halted_.data(), lines_->ahead.at(kHalted).get(), rows);
  device.download(reinterpret_cast<char*>(depth_.data()), lines_->ahead.at(kDepth).get(),
                  rows * static_cast<std::int64_t>(sizeof(std::int32_t)));
  static_cast<DeviceStates&>(states).saw(lines, halted_, depth_);  // what `bind` was given
  return 1;
}

const float* DeviceGraphs::leave(const States&, const Lines& lines, const float* answers, const std::vector<std::int64_t>& pick,
                                 const Spans& spans, const Tables& tables) {
  const auto wanted = static_cast<std::int64_t>(pick.size());
  const auto values = static_cast<std::size_t>(most_rows * spec->vocab_size);
  logits_.resize(values);  // of always as many, for what is bound stays where it is
  Frame& call = frame(kLeave, spans, static_cast<std::int64_t>(lines.size()), wanted, answers);
  std::copy(pick.begin(), pick.end(), call.numbers.here<std::int64_t>("pick"));
  put_place(call, spans, tables);
  call.run();
  ++lines_->device->downloads;
  return logits_.data();
}

void DeviceGraphs::Frame::run() {
  numbers.cross();
  for (Bound& each : bound) each.run();
}

void DeviceGraphs::put_place(Frame& call, const Spans& spans, const Tables& tables) const {
  if (call.numbers.has("tables"))
    engine::put_place(spans, tables, blocks_of(spans), call.numbers.here<std::int64_t>("position"),
                      call.numbers.here<std::int64_t>("span"), call.numbers.here<std::int64_t>("tables"));
}

// -- frames --------------------------------------------------------------------------------------------------------------

DeviceGraphs::Frame& DeviceGraphs::frame(const std::string& graph, const Spans& spans, std::int64_t rows, std::int64_t wanted,
                                         const float* answers) {
  const auto& inputs = spec->graphs.at(graph).inputs;
  const bool paged = std::any_of(inputs.begin(), inputs.end(), [](const Port& port) { return port.role == "cache"; });
  const Key key{graph, rows, paged ? blocks_of(spans) : 0, wanted, answers};
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
  const auto& [graph, rows, blocks, wanted, answers] = key;
  const Ports& ports = spec->graphs.at(graph);
  const PagedCache* pages = graph == kStep ? loop_ : around_;
  const Symbols symbols{{"R", rows}, {"S", rows}, {"K", blocks}, {"W", wanted}, {"G", pages ? pages->pages() : 0}};
  std::vector<const Port*> numbered;
  Numbers::Sizes sizes;
  for (const Port& port : ports.inputs)
    if (std::find(kNumbered.begin(), kNumbered.end(), port.role) != kNumbered.end() && (port.role != "ids" || graph == kEnter)) {
      auto bytes = static_cast<std::int64_t>(dtype_size(port.dtype));
      for (const std::int64_t size : shape_of(port, symbols)) bytes *= size;
      numbered.push_back(&port);
      sizes.emplace_back(port.role, bytes);
    }
  if (graph == kStep) sizes.emplace_back("lines", rows * static_cast<std::int64_t>(sizeof(std::int64_t)));
  Numbers numbers(lines_->device, sizes);
  Addresses there, host;
  for (const Port* port : numbered) there[port->name] = numbers.there(port->role);
  std::int64_t slot = graph == kLeave ? before_ : 0;
  for (const Port& port : ports.inputs) {
    if (port.role == "cache")
      there[port.name] = there[port.name + "_next"] = pages->slot(slot++);
    else if (!there.count(port.name))
      there[port.name] = address(port, answers);
  }
  for (const Port& port : ports.outputs) {
    if (port.role == "logits")
      host[port.name] = reinterpret_cast<char*>(logits_.data());
    else if (port.role != "cache_next")
      there[port.name] = port.role == "encoded" ? encoded_.get() : lines_->ahead.at(port.group).get();
  }
  std::vector<Bound> bound;
  if (graph == kStep) bound.push_back(lines_->taking(*states_, numbers.there("lines"), rows));
  bound.emplace_back(sessions_.at(graph), ports, there, symbols, host);
  if (graph == kStep) {
    Addresses given;
    for (const auto* batch : {&lines_->rows, &lines_->ahead})  // what the step makes in the place of what it was given
      for (const auto& [name, memory] : *batch) given[name] = memory.get();
    bound.push_back(lines_->putting(*states_, numbers.there("lines"), rows, given));
  }
  return {std::move(numbers), std::move(bound)};
}

// Of an input that was on the device before the call.
char* DeviceGraphs::address(const Port& port, const float* answers) const {
  if (port.role == "answer") return const_cast<char*>(reinterpret_cast<const char*>(answers));  // which is only read
  const std::string name = port.role == "encoded" ? kEncoded : port.role == "ids" ? kToken : port.group;
  return lines_->rows.at(name).get();
}

}  // namespace mythos::engine
