#include "engine/graphs.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "batch.hpp"
#include "row_ports.hpp"

namespace mythos::engine {
namespace {

constexpr std::size_t kMostBindings = 128;
constexpr std::int64_t kMostLoopsOfCall = 16;
constexpr std::int64_t kMostTables = 1 << 22;  // numbers of pages in the tables of a call of several loops: 32 MB
constexpr float kAlways = -std::numeric_limits<float>::infinity();  // with `last`: every exit rule lets a position leave

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

void scatter(const char* from, const States::Array& to, const Lines& lines) {
  const auto bytes = static_cast<std::size_t>(to.row_bytes);
  for (const std::int64_t line : lines) {
    std::memcpy(to.row(line), from, bytes);
    from += bytes;
  }
}

// The step in a Loop where there is one, by its ports.
Part step_of(const LoopSpec& spec, const OpenGraph& open, std::int64_t most_rows, std::int64_t most_positions) {
  const Ports& step = spec.graphs.at(kStep);
  if (auto session = open(kLoops)) return Part(loop_ports(step), 0, std::move(session), most_rows, most_positions);
  return Part(step, 0, open(kStep), most_rows, most_positions);
}

// The slot of the cache around the loop that the layers behind it begin with.
std::int64_t before(const LoopSpec& spec) {
  for (const CacheGroup& group : spec.caches)
    if (!group.per_loop) return group.before;
  return 0;
}

// The next power of two.
std::int64_t few_sizes(std::int64_t count) {
  std::int64_t size = 1;
  while (size < count) size *= 2;
  return size;
}

// Lets a row halt where its cap says; `ends`: the number of the loop.
void cap(const Span& span, std::int64_t ends, std::int32_t cap, bool& last, float* threshold) {
  if (ends < span.sequence->limit) {
    last = cap == ends;
    if (last && threshold) *threshold = kAlways;
  } else if (threshold && std::isnan(*threshold)) {
    // At the limit nothing is forced: a sum that falls short of the threshold takes no remainder.
    *threshold = span.sequence->threshold;
  }
}

}  // namespace

std::int64_t blocks_of(const Spans& spans) {
  std::int64_t most = 0;
  for (const Span& span : spans) most = std::max(most, span.last / kPage + 1);
  return few_sizes(most);
}

void put_place(const Spans& spans, const Tables& tables, std::int64_t blocks, std::int64_t* position, std::int64_t* span,
               std::int64_t* table) {
  for (std::size_t i = 0; i < spans.size(); ++i)
    for (std::int64_t at = spans[i].first; at <= spans[i].last; ++at) {
      *position++ = at;
      *span++ = static_cast<std::int64_t>(i);
    }
  put_tables(spans, tables, blocks, table);
}

void put_tables(const Spans& spans, const Tables& tables, std::int64_t blocks, std::int64_t* table) {
  for (std::size_t i = 0; i < spans.size(); ++i, table += blocks)
    std::copy_n(tables[i]->begin(), spans[i].last / kPage + 1, table);
}

void put_knobs(const States& states, const Lines& lines, const Spans& spans, bool* last, float* threshold, std::int64_t ahead) {
  auto line = lines.begin();
  for (const Span& span : spans) {
    const std::int64_t ends = span.depth + ahead + 1;
    for (std::int64_t row = 0; row < span.rows(); ++row, ++line, ++last) {
      *last = ends == span.sequence->limit;
      if (threshold) *threshold = states.threshold[static_cast<std::size_t>(*line)];
      if (span.sequence->capped) cap(span, ends, states.cap[static_cast<std::size_t>(*line)], *last, threshold);
      if (threshold) ++threshold;
    }
  }
}

void put_depths(const Spans& spans, std::int64_t* loop) {
  for (const Span& span : spans) loop = std::fill_n(loop, span.rows(), span.depth);
}

void put_stops(const Spans& spans, bool* stops) {
  for (const Span& span : spans) {
    stops = std::fill_n(stops, span.rows(), false);
    stops[-1] = !span.sequence->job || !span.sequence->job->whole;
  }
}

Part::Part(Ports ports, std::int64_t slot, std::shared_ptr<OrtSession> session, std::int64_t most_rows, std::int64_t most_positions)
    : session_(std::move(session)), ports_(std::move(ports)), most_rows_(most_rows), slot_(slot) {
  const std::int64_t blocks = (most_positions + kPage - 1) / kPage * 2;
  if (std::any_of(ports_.inputs.begin(), ports_.inputs.end(), [](const Port& port) { return port.role == "loops"; }))
    most_loops_ = kMostLoopsOfCall;
  const std::int64_t tables = std::max(std::min(saturated_product(most_loops_, most_rows), kMostTables / blocks), most_rows);
  const Symbols most{{"R", most_rows}, {"S", most_rows}, {"T", tables}, {"K", blocks}, {"W", most_rows}, {"L", most_loops_}};
  most_tables_ = saturated_product(tables, blocks);
  for (const auto* side : {&ports_.inputs, &ports_.outputs})
    for (const Port& port : *side) {
      paged_ = paged_ || is_cache(port);
      if (is_cache(port)) continue;
      std::vector<std::int64_t> sizes = shape_of(port, most);
      sizes.push_back(static_cast<std::int64_t>(dtype_size(port.dtype)));
      Bytes memory = zeros(sizes, "buffers");  // which finds that they fit
      const auto product = std::accumulate(sizes.begin(), sizes.end(), std::int64_t{1}, std::multiplies<>());
      memory_[port.name] = {std::move(memory), static_cast<std::size_t>(product)};
    }
  position_ = reinterpret_cast<std::int64_t*>(data("position"));
  span_ = reinterpret_cast<std::int64_t*>(data("span"));
  tables_ = reinterpret_cast<std::int64_t*>(data("tables"));
}

void Part::bind(const PagedCache* cache) {
  std::int64_t slot = slot_;
  for (const Port& port : ports_.inputs)
    if (port.role == "cache") caches_[port.name] = cache->slot(slot++);
  if (paged_) pages_ = cache->pages();
  bindings_.clear();
  order_.clear();
}

char* Part::data(const std::string& role, const std::string& group) const {
  for (const auto* side : {&ports_.inputs, &ports_.outputs})
    for (const Port& port : *side)
      if (port.role == role && port.group == group) return memory_.at(port.name).memory.get();
  return nullptr;
}

void Part::rest() {
  for (const auto& [name, buffer] : memory_)
    give_back(buffer.memory.get(), buffer.bytes / static_cast<std::size_t>(most_rows_) * static_cast<std::size_t>(touched_));
  touched_ = 0;
}

std::pair<std::int64_t, std::int64_t> Part::tables_of(const Spans& spans) const {
  if (!paged_) return {1, 1};
  const std::int64_t count = std::min(few_sizes(static_cast<std::int64_t>(spans.size())), most_rows_);
  return {count, std::min(most_loops_, most_tables_ / (count * blocks_of(spans)))};
}

void Part::run(const Spans& spans, const LoopTables& tables, std::int64_t rows, std::int64_t wanted) {
  const std::int64_t blocks = paged_ ? blocks_of(spans) : 0;
  const auto [count, loops] = tables_of(spans);
  const Sizes sizes{rows, count, blocks, wanted};
  if (paged_) {
    put_place(spans, tables[0], blocks, position_, span_, tables_);
    for (std::int64_t loop = 1; loop < std::min(loops, static_cast<std::int64_t>(tables.size())); ++loop)
      put_tables(spans, tables[static_cast<std::size_t>(loop)], blocks, tables_ + loop * count * blocks);
  }
  auto found = bindings_.find(sizes);
  if (found == bindings_.end()) {
    if (bindings_.size() >= kMostBindings) {  // the one that was used longest ago goes
      bindings_.erase(order_.front());
      order_.erase(order_.begin());
    }
    found = bindings_.emplace(sizes, make(sizes)).first;
  } else {
    order_.erase(std::find(order_.begin(), order_.end(), sizes));
  }
  order_.push_back(sizes);
  touched_ = std::max(touched_, rows);
  session_->run(found->second);
}

Ort::IoBinding Part::make(const Sizes& sizes) const {
  const auto [rows, tables, blocks, wanted] = sizes;
  const std::int64_t loops = paged_ ? std::min(most_loops_, most_tables_ / (tables * blocks)) : 1;
  const Symbols symbols{{"R", rows}, {"S", tables}, {"T", loops * tables}, {"K", blocks}, {"W", wanted}, {"G", pages_}, {"L", loops}};
  Ort::IoBinding binding = session_->binding();
  const auto tensor = [&](const Port& port) {
    char* memory = is_cache(port) ? caches_.at(buffer_of(port)) : memory_.at(port.name).memory.get();
    return session_->tensor(memory, port.dtype, shape_of(port, symbols));
  };
  for (const Port& port : ports_.inputs) binding.BindInput(port.name.c_str(), tensor(port));
  for (const Port& port : ports_.outputs) binding.BindOutput(port.name.c_str(), tensor(port));
  session_->bind_linked(binding);
  return binding;
}

RowGraphs::RowGraphs(std::shared_ptr<const LoopSpec> given, const OpenGraph& open, const Memory& memory,
                     std::int64_t most_rows, std::int64_t most_positions)
    : Graphs(std::move(given), most_rows), enter_(spec->graphs.at(kEnter), 0, open(kEnter), most_rows, most_positions),
      step_(step_of(*spec, open, most_rows, most_positions)),
      leave_(spec->graphs.at(kLeave), before(*spec), open(kLeave), most_rows, most_positions) {
  most_loops = step_.most_loops();
  for (const StateTensor& tensor : spec->state)
    carried_.push_back({tensor.name, step_.data("state", tensor.name), step_.data("state_next", tensor.name)});
  encoded_ = step_.data("encoded"), tokens_ = step_.data("ids");
  loop_ = reinterpret_cast<std::int64_t*>(step_.data("loop"));
  last_ = reinterpret_cast<bool*>(step_.data("last"));
  threshold_ = reinterpret_cast<float*>(step_.data("halt_threshold"));
  loops_ = reinterpret_cast<std::int64_t*>(step_.data("loops")), ran_ = reinterpret_cast<std::int64_t*>(step_.data("ran"));
  spans_ = reinterpret_cast<std::int64_t*>(step_.data("spans")), stops_ = reinterpret_cast<bool*>(step_.data("stops"));
  RowGraphs::bind(memory);
}

void RowGraphs::bind(const Memory& memory) {
  enter_.bind(memory.around.get());
  step_.bind(memory.loop.get());
  leave_.bind(memory.around.get());
}

Lines RowGraphs::enter(States& states, const std::vector<std::int64_t>& ids, const float* initial, const Spans& spans,
                       const Tables& tables) {
  std::memcpy(enter_.data("ids"), ids.data(), ids.size() * sizeof ids[0]);
  enter_.run(spans, {tables}, static_cast<std::int64_t>(ids.size()));
  return states.begin(ids, reinterpret_cast<const float*>(enter_.data("encoded")), initial);
}

std::int64_t RowGraphs::step(States& states, const Lines& lines, const Spans& spans, const LoopTables& tables) {
  gather(encoded_, states.array(kEncoded), lines);
  if (tokens_) gather(tokens_, states.array(kToken), lines);
  for (const Carried& each : carried_) gather(each.in, states.array(each.name), lines);
  const auto rows = static_cast<std::int64_t>(lines.size());
  const auto [count, most] = step_.tables_of(spans);
  const std::int64_t loops = std::min(most, static_cast<std::int64_t>(tables.size()));
  put_depths(spans, loop_);
  for (std::int64_t loop = 0; loop < loops; ++loop)
    put_knobs(states, lines, spans, last_ + loop * rows, threshold_ ? threshold_ + loop * rows : nullptr, loop);
  if (loops_) {
    *loops_ = loops, *spans_ = count;
    if (loops > 1) put_stops(spans, stops_);
  }
  step_.run(spans, tables, rows);
  const std::int64_t ran = ran_ ? *ran_ : 1;
  if (ran < 1 || ran > loops)
    throw BackendFailed(std::string(kLoops) + ".onnx says that it ran " + std::to_string(ran) + " loops of " +
                        std::to_string(loops) + ": export the model again");
  for (const Carried& each : carried_) scatter(each.out, states.array(each.name), lines);
  return ran;
}

const float* RowGraphs::leave(States& states, const Lines& lines, const std::vector<bool>& early,
                              const std::vector<std::int64_t>& pick, const Spans& spans, const Tables& tables) {
  // The layers behind the loop and their intermediate results come on top of what a prompt has touched: in a large model its
  // rows in these buffers are as much as one in sixty of the weights.
  enter_.rest();
  step_.rest();
  std::memcpy(leave_.data("answer", spec->state[1].name), states.answers(lines, early),
              lines.size() * static_cast<std::size_t>(states.array(spec->state[1].name).row_bytes));
  if (char* tokens = leave_.data("ids")) gather(tokens, states.array(kToken), lines);
  std::memcpy(leave_.data("pick"), pick.data(), pick.size() * sizeof pick[0]);
  leave_.run(spans, {tables}, static_cast<std::int64_t>(lines.size()), static_cast<std::int64_t>(pick.size()));
  return reinterpret_cast<const float*>(leave_.data("logits"));
}

}  // namespace mythos::engine
