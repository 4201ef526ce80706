#include "engine/ort_device.hpp"

#include <algorithm>

#include "line_ports.hpp"

namespace mythos::engine {
namespace {

constexpr std::int64_t kAligned = 64;                      // what a number begins at a multiple of; kernels count on 16
constexpr std::int64_t kMostBytes = std::int64_t{64} << 20;  // that are moved at a time, through a buffer of as many

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

std::shared_ptr<char> OrtDevice::allocate(std::int64_t bytes, const std::string& what) const {
  return session_->allocate_there(static_cast<std::size_t>(std::max<std::int64_t>(bytes, 1)),
                                  [&] { no_memory_for(static_cast<double>(bytes), what); });
}

Bound::Bound(std::shared_ptr<OrtDevice> device, std::shared_ptr<OrtSession> session, const Ports& ports, const Addresses& there,
             const Addresses& host, const Symbols& sizes)
    : device_(std::move(device)), session_(std::move(session)) {
  const auto tensor = [&](const Port& port, std::int64_t& crossing) {
    const auto found = host.find(port.name);
    if (found == host.end()) return session_->tensor_there(there.at(port.name), port.dtype, shape_of(port, sizes));
    ++crossing;
    return session_->tensor(found->second, port.dtype, shape_of(port, sizes));
  };
  for (const Port& port : ports.inputs) inputs_.push_back(tensor(port, uploads_));
  for (const Port& port : ports.outputs) outputs_.push_back(tensor(port, downloads_));
}

void Bound::run() {
  ++device_->calls;
  session_->run(inputs_, outputs_);
  device_->uploads += uploads_, device_->downloads += downloads_;
}

Numbers::Numbers(const Sizes& sizes) {
  std::int64_t end = 0;
  for (const auto& [name, bytes] : sizes) {
    places_[name] = end;
    end += (bytes + kAligned - 1) / kAligned * kAligned;
  }
  bytes_.resize(static_cast<std::size_t>(end));
}

LineGraphs::LineGraphs(const OpenLines& open) : ports_(move_ports()) {
  for (const auto& [name, ports] : ports_) sessions_[name] = open(name, ports);
  device = std::make_shared<OrtDevice>(sessions_.at(kTakeBytes));
}

MakeLines LineGraphs::pools(std::shared_ptr<LineGraphs> graphs) {
  return [graphs](std::int64_t lines, std::int64_t bytes, const std::string& what) {
    return std::make_unique<DeviceLines>(graphs, lines, bytes, what);
  };
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
    const std::shared_ptr<char> moved = device->allocate(count * bytes, "lines on their way");
    const auto call = [&](const char* graph, Lines& lines, const Addresses& pools, std::int64_t of) {
      Addresses there_too = pools;
      there_too["rows"] = moved.get();
      Bound(device, sessions_.at(graph), ports_.at(graph), there_too,
            {{"lines", reinterpret_cast<char*>(lines.data() + first)}}, {{"R", count}, {"L", of}, {"B", bytes}})
          .run();
    };
    call(kTakeBytes, sources, {{"pool", from}}, from_lines);
    call(kPutBytes, targets, {{"pool", to}, {"pool_next", to}}, to_lines);
  }
}

}  // namespace mythos::engine
