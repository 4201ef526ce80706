#include "engine/ort_device.hpp"

#include <algorithm>
#include <cstring>

#include "line_ports.hpp"

namespace mythos::engine {
namespace {

constexpr std::int64_t kAligned = 64;                      // what a number begins at a multiple of; kernels count on 16
constexpr std::int64_t kMostBytes = std::int64_t{64} << 20;  // that are moved at a time, through a buffer of as many

std::int64_t row_bytes(const Port& port) {
  auto bytes = static_cast<std::int64_t>(dtype_size(port.dtype));
  for (const Dim& dim : port.dims)
    if (dim.symbol.empty()) bytes *= dim.size;
  return bytes;
}

char* address(const std::shared_ptr<char>& memory) { return memory.get(); }

// Lines of memory there.
class DeviceLines : public LinePool {
 public:
  DeviceLines(std::shared_ptr<LineGraphs> graphs, std::int64_t lines, std::int64_t bytes, const std::string& what)
      : graphs_(std::move(graphs)), lines_(lines), bytes_(bytes) {
    std::int64_t all = 0;
    if (__builtin_mul_overflow(lines, bytes, &all)) no_memory_for(static_cast<double>(lines) * static_cast<double>(bytes), what);
    memory_ = graphs_->device->allocate(all, what);
  }
  char* data() const override { return memory_.get(); }
  void copy(const Lines& to, const LinePool& source, const Lines& from, std::int64_t run) override {
    const auto& other = static_cast<const DeviceLines&>(source);  // of one engine all pools are of one kind
    graphs_->move(data(), lines_, to, other.data(), other.lines_, from, run, bytes_);
  }

 private:
  std::shared_ptr<LineGraphs> graphs_;
  std::int64_t lines_, bytes_;
  std::shared_ptr<char> memory_;
};

}  // namespace

Bound::Bound(std::shared_ptr<OrtSession> session, const Ports& ports, const Addresses& there, const Symbols& sizes,
             const Addresses& host)
    : session_(std::move(session)), binding_(session_->binding()) {
  const auto tensor = [&](const Port& port) {
    const auto found = host.find(port.name);
    return found != host.end() ? session_->tensor(found->second, port.dtype, shape_of(port, sizes))
                               : session_->tensor_there(there.at(port.name), port.dtype, shape_of(port, sizes));
  };
  for (const Port& port : ports.inputs) binding_.BindInput(port.name.c_str(), tensor(port));
  for (const Port& port : ports.outputs) binding_.BindOutput(port.name.c_str(), tensor(port));
}

std::shared_ptr<char> OrtDevice::allocate(std::int64_t bytes, const std::string& what) const {
  return cross_->allocate_there(static_cast<std::size_t>(std::max<std::int64_t>(bytes, 1)),
                                [&] { no_memory_for(static_cast<double>(bytes), what); });
}

void OrtDevice::upload(char* there, const char* here, std::int64_t bytes) {
  ++uploads;  // ONNX Runtime takes a mutable pointer for what it only reads
  Bound(cross_, ports_, {{"crossed", there}}, {{"B", bytes}}, {{"bytes", const_cast<char*>(here)}}).run();
}

void OrtDevice::download(char* here, const char* there, std::int64_t bytes) {
  ++downloads;
  Bound(cross_, ports_, {{"bytes", const_cast<char*>(there)}}, {{"B", bytes}}, {{"crossed", here}}).run();
}

Numbers::Numbers(std::shared_ptr<OrtDevice> device, const Sizes& sizes) : device_(std::move(device)) {
  std::int64_t end = 0;
  for (const auto& [name, bytes] : sizes) {
    places_[name] = end;
    end += (bytes + kAligned - 1) / kAligned * kAligned;
  }
  here_.resize(static_cast<std::size_t>(end));
  there_ = device_->allocate(end, "numbers");
}

LineGraphs::LineGraphs(const LoopSpec& spec, const OpenLines& open, std::int64_t most)
    : device(std::make_shared<OrtDevice>(open(kCross, line_ports(spec).at(kCross)), line_ports(spec).at(kCross))),
      most_rows(most), ports_(line_ports(spec)) {
  for (const auto& [name, ports] : ports_)
    if (name != kCross) sessions_[name] = open(name, ports);
  for (const Port& port : ports_.at(kTake).outputs) rows[port.name] = batch(port.name);
  for (const StateTensor& tensor : spec.state) ahead[tensor.name] = batch(tensor.name);
  if (ports_.count(kRest)) answered = batch(spec.state[1].name);
}

MakeLines LineGraphs::pools(std::shared_ptr<LineGraphs> graphs) {
  return [graphs](std::int64_t lines, std::int64_t bytes, const std::string& what) {
    return std::make_unique<DeviceLines>(graphs, lines, bytes, what);
  };
}

std::shared_ptr<char> LineGraphs::batch(const std::string& name) const {
  return device->allocate(most_rows * row_bytes(row_of(name)), "rows");
}

// ONNX Runtime's interface sets no memory on a device, so that a row crosses, and is taken again and again.
std::shared_ptr<char> LineGraphs::constant(const std::string& name, bool ones) const {
  const Port& port = row_of(name);
  const std::int64_t bytes = row_bytes(port);
  Numbers numbers(device, {{"lines", most_rows * static_cast<std::int64_t>(sizeof(std::int64_t))}, {"row", bytes}});
  std::fill_n(numbers.here<std::int64_t>("lines"), most_rows, 0);
  char* const row = numbers.here<char>("row");
  std::fill_n(row, bytes, 0);
  const auto size = static_cast<std::int64_t>(dtype_size(port.dtype));
  for (std::int64_t at = 0; ones && at < bytes; at += size)
    std::memcpy(row + at, one_of(port.dtype), static_cast<std::size_t>(size));
  numbers.cross();
  std::shared_ptr<char> rows_there = batch(name);
  bound(kTakeBytes, {{"lines", numbers.there("lines")}, {"pool", numbers.there("row")}, {"rows", rows_there.get()}},
        {{"R", most_rows}, {"L", 1}, {"B", bytes}}).run();
  return rows_there;
}

Bound LineGraphs::taking(const States& states, char* lines, std::int64_t count) const {
  Addresses addresses = pools_of(states);
  addresses["lines"] = lines;
  for (const auto& [name, memory] : rows) addresses[name] = address(memory);
  return bound(kTake, addresses, {{"R", count}, {"L", states.lines()}});
}

Bound LineGraphs::putting(const States& states, char* lines, std::int64_t count, const Addresses& given) const {
  Addresses addresses = pools_of(states);
  addresses.insert(given.begin(), given.end());
  addresses["lines"] = lines;
  return bound(kPut, addresses, {{"R", count}, {"L", states.lines()}});
}

Bound LineGraphs::resting(char* early, std::int64_t count) const {
  Addresses addresses{{"early", early}, {"answered", address(answered)}};
  for (const auto& [name, memory] : rows) addresses[name] = address(memory);
  return bound(kRest, addresses, {{"R", count}});
}

void LineGraphs::move(char* to, std::int64_t to_lines, const Lines& there, char* from, std::int64_t from_lines,
                      const Lines& here, std::int64_t run, std::int64_t bytes) const {
  Lines targets, sources;
  for (std::size_t i = 0; i < there.size(); ++i)
    for (std::int64_t line = 0; line < run; ++line) {
      targets.push_back(there[i] + line);
      sources.push_back(here[i] + line);
    }
  const auto most = static_cast<std::size_t>(std::max<std::int64_t>(kMostBytes / bytes, 1));
  for (std::size_t first = 0; first < targets.size(); first += most) {
    const auto count = static_cast<std::int64_t>(std::min(most, targets.size() - first));
    const std::int64_t each = count * static_cast<std::int64_t>(sizeof(std::int64_t));
    Numbers numbers(device, {{"to", each}, {"from", each}});
    std::copy_n(targets.begin() + static_cast<std::ptrdiff_t>(first), count, numbers.here<std::int64_t>("to"));
    std::copy_n(sources.begin() + static_cast<std::ptrdiff_t>(first), count, numbers.here<std::int64_t>("from"));
    numbers.cross();
    const std::shared_ptr<char> moved = device->allocate(count * bytes, "lines on their way");
    bound(kTakeBytes, {{"lines", numbers.there("from")}, {"pool", from}, {"rows", moved.get()}},
          {{"R", count}, {"L", from_lines}, {"B", bytes}}).run();
    bound(kPutBytes, {{"lines", numbers.there("to")}, {"pool", to}, {"pool_next", to}, {"rows", moved.get()}},
          {{"R", count}, {"L", to_lines}, {"B", bytes}}).run();
  }
}

const Port& LineGraphs::row_of(const std::string& name) const {
  const auto& rows_taken = ports_.at(kTake).outputs;
  return *std::find_if(rows_taken.begin(), rows_taken.end(), [&](const Port& port) { return port.name == name; });
}

Bound LineGraphs::bound(const std::string& graph, const Addresses& addresses, const Symbols& sizes) const {
  return Bound(sessions_.at(graph), ports_.at(graph), addresses, sizes);
}

// The pools, as input and output both.
Addresses LineGraphs::pools_of(const States& states) const {
  Addresses addresses;
  for (const Port& port : ports_.at(kTake).inputs)
    if (port.role == "pool")
      addresses[port.name] = addresses[port.name + "_next"] = states.array(port.group).memory->data();
  return addresses;
}

}  // namespace mythos::engine
