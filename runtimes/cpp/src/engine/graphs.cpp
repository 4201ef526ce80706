#include "engine/graphs.hpp"

#include <algorithm>
#include <cstring>

#include "row_ports.hpp"

namespace mythos::engine {
namespace {

constexpr std::size_t kMostBindings = 512;

bool is_cache(const Port& port) { return port.role == "cache" || port.role == "cache_next"; }

// "cache_3_next" -> "cache_3": appending in place is reading and writing the same buffer.
std::string buffer_of(const Port& port) {
  return port.role == "cache_next" ? port.name.substr(0, port.name.size() - std::strlen("_next")) : port.name;
}

void gather(char* to, const States::Array& from, const Lines& lines) {
  const auto bytes = static_cast<std::size_t>(from.row_bytes);
  for (const std::int64_t line : lines) {
    std::memcpy(to, from.row(line), bytes);
    to += bytes;
  }
}

// The rows' tokens, where the graph reads them.
void gather_tokens(const BoundGraph& graph, const States& states, const Lines& lines) {
  if (char* tokens = graph.data("ids")) gather(tokens, states.array(kToken), lines);
}

void scatter(const char* from, const States::Array& to, const Lines& lines) {
  const auto bytes = static_cast<std::size_t>(to.row_bytes);
  for (const std::int64_t line : lines) {
    std::memcpy(to.row(line), from, bytes);
    from += bytes;
  }
}

}  // namespace

BoundGraph::BoundGraph(std::shared_ptr<OrtSession> session, const Ports& ports,
                       std::map<std::string, std::pair<char*, std::int64_t>> caches, const Symbols& most)
    : session_(std::move(session)), ports_(ports), caches_(std::move(caches)) {
  for (const auto* side : {&ports_.inputs, &ports_.outputs})
    for (const Port& port : *side) {
      if (is_cache(port)) continue;
      std::vector<std::int64_t> sizes = shape_of(port, most);
      sizes.push_back(static_cast<std::int64_t>(dtype_size(port.dtype)));
      memory_[port.name] = zeros(sizes, "buffers");
    }
  for (const auto& [symbol, size] : most)
    for (const Port& port : ports_.inputs)
      if (!is_cache(port) && std::count(port.dims.begin(), port.dims.end(), Dim{0, symbol})) {
        symbols_.push_back(symbol);
        break;
      }
}

char* BoundGraph::data(const std::string& role, const std::string& group) const {
  for (const auto* side : {&ports_.inputs, &ports_.outputs})
    for (const Port& port : *side)
      if (port.role == role && port.group == group) return memory_.at(port.name).get();
  return nullptr;
}

void BoundGraph::run(const Symbols& sizes) {
  std::vector<std::int64_t> key;
  for (const std::string& symbol : symbols_) key.push_back(sizes.at(symbol));
  auto found = bindings_.find(key);
  if (found == bindings_.end()) {
    if (bindings_.size() >= kMostBindings) {
      bindings_.erase(order_.front());
      order_.erase(order_.begin());
    }
    found = bindings_.emplace(key, bind(sizes)).first;
    order_.push_back(key);
  }
  session_->run(found->second);
}

Ort::IoBinding BoundGraph::bind(const Symbols& sizes) const {
  Ort::IoBinding binding = session_->binding();
  const auto tensor = [&](const Port& port) {
    if (!is_cache(port)) return session_->tensor(memory_.at(port.name).get(), port.dtype, shape_of(port, sizes));
    const auto& [memory, pages] = caches_.at(buffer_of(port));
    return session_->tensor(memory, port.dtype, shape_of(port, {{"G", pages}}));
  };
  for (const Port& port : ports_.inputs) binding.BindInput(port.name.c_str(), tensor(port));
  for (const Port& port : ports_.outputs) binding.BindOutput(port.name.c_str(), tensor(port));
  return binding;
}

RowGraphs::RowGraphs(std::shared_ptr<const LoopSpec> given,
                     const std::function<std::shared_ptr<OrtSession>(const std::string&)>& open, const PagedCache* around,
                     const PagedCache* loop, std::int64_t most_rows, std::int64_t most_positions)
    : Graphs(std::move(given), most_rows), enter_(part(kEnter, open(kEnter), around, most_positions)),
      step_(part(kStep, open(kStep), loop, most_positions)), leave_(part(kLeave, open(kLeave), around, most_positions)) {}

RowGraphs::Part RowGraphs::part(const std::string& name, std::shared_ptr<OrtSession> session, const PagedCache* cache,
                                std::int64_t most_positions) const {
  const Ports& ports = spec->graphs.at(name);
  std::map<std::string, std::pair<char*, std::int64_t>> caches;
  std::int64_t slot = 0;
  for (const CacheGroup& group : spec->caches)
    if (name == kLeave && !group.per_loop) slot = group.before;
  for (const Port& port : ports.inputs)
    if (port.role == "cache") caches[port.name] = {cache->slot(slot++), cache->pages()};
  // Blocks of a table come in powers of two, as each number is bound anew.
  const Symbols most{{"R", most_rows}, {"S", most_rows}, {"K", 2 * ((most_positions + kPage - 1) / kPage)}, {"W", most_rows}};
  const bool has_cache = !caches.empty();
  return {BoundGraph(std::move(session), ports, std::move(caches), most), has_cache};
}

const float* RowGraphs::enter(const std::vector<std::int64_t>& ids, const Spans& spans, const Tables& tables) {
  std::memcpy(enter_.graph.data("ids"), ids.data(), ids.size() * sizeof ids[0]);
  run(enter_, spans, tables, static_cast<std::int64_t>(ids.size()), 0);
  return reinterpret_cast<const float*>(enter_.graph.data("encoded"));
}

void RowGraphs::step(const States& states, const Lines& lines, const Spans& spans, const Tables& tables) {
  const BoundGraph& graph = step_.graph;
  gather(graph.data("encoded"), states.array(kEncoded), lines);
  gather_tokens(graph, states, lines);
  for (const StateTensor& tensor : spec->state) gather(graph.data("state", tensor.name), states.array(tensor.name), lines);
  auto* loop = reinterpret_cast<std::int64_t*>(graph.data("loop"));
  auto* last = reinterpret_cast<bool*>(graph.data("last"));
  auto* threshold = reinterpret_cast<float*>(graph.data("halt_threshold"));  // null where the model lacks the knob
  for (const Span& span : spans) {
    const auto rows = static_cast<std::size_t>(span.rows());
    loop = std::fill_n(loop, rows, span.depth);
    last = std::fill_n(last, rows, span.depth + 1 == span.sequence->limit);
    if (threshold) threshold = std::fill_n(threshold, rows, span.sequence->threshold);
  }
  run(step_, spans, tables, static_cast<std::int64_t>(lines.size()), 0);
  for (const StateTensor& tensor : spec->state)
    scatter(graph.data("state_next", tensor.name), states.array(tensor.name), lines);
}

const float* RowGraphs::leave(const States& states, const Lines& lines, const std::vector<std::int64_t>& pick,
                              const Spans& spans, const Tables& tables) {
  const std::string& answer = spec->state[1].name;
  gather(leave_.graph.data("answer", answer), states.array(answer), lines);
  gather_tokens(leave_.graph, states, lines);
  std::memcpy(leave_.graph.data("pick"), pick.data(), pick.size() * sizeof pick[0]);
  run(leave_, spans, tables, static_cast<std::int64_t>(lines.size()), static_cast<std::int64_t>(pick.size()));
  return reinterpret_cast<const float*>(leave_.graph.data("logits"));
}

void RowGraphs::run(Part& part, const Spans& spans, const Tables& tables, std::int64_t rows, std::int64_t wanted) {
  Symbols sizes{{"R", rows}, {"W", wanted}};
  if (part.has_cache) {
    std::int64_t most = 0, blocks = 1;
    for (const Span& span : spans) most = std::max(most, span.last / kPage + 1);
    while (blocks < most) blocks *= 2;
    sizes["S"] = most_rows, sizes["K"] = blocks;
    auto* position = reinterpret_cast<std::int64_t*>(part.graph.data("position"));
    auto* number = reinterpret_cast<std::int64_t*>(part.graph.data("span"));
    auto* table = reinterpret_cast<std::int64_t*>(part.graph.data("tables"));
    for (std::size_t i = 0; i < spans.size(); ++i, table += blocks) {
      for (std::int64_t at = spans[i].first; at <= spans[i].last; ++at) {
        *position++ = at;
        *number++ = static_cast<std::int64_t>(i);
      }
      std::copy_n(tables[i]->begin(), spans[i].last / kPage + 1, table);
    }
  }
  part.graph.run(sizes);
}

}  // namespace mythos::engine
