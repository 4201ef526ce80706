// Memory of ONNX Runtime's on a device, graphs that are bound to it, and lines that they move (ort_device of the engine in
// Python). Built, not executed on a GPU: tests have the CPU's memory in its place.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/line_pool.hpp"
#include "ort.hpp"
#include "ports.hpp"

namespace mythos::engine {

using Addresses = std::map<std::string, char*>;  // by port
using OpenLines = std::function<std::shared_ptr<OrtSession>(const std::string&, const Ports&)>;  // of `move_ports`, by name

class OrtDevice {
 public:
  // `session`: one that runs there.
  explicit OrtDevice(std::shared_ptr<OrtSession> session) : session_(std::move(session)) {}
  // Not zeros: nothing is read of it before it was written. CapacityError, which says what it was for.
  std::shared_ptr<char> allocate(std::int64_t bytes, const std::string& what) const;

  // Calls of ONNX Runtime's graphs so far, and tensors that it took there and back in them.
  std::int64_t calls = 0, uploads = 0, downloads = 0;

 private:
  std::shared_ptr<OrtSession> session_;
};

// A graph with all that it reads and writes. What is the host's crosses in the call: ONNX Runtime takes a feed to where the
// graph runs, and brings a result back. (A binding would take it there once, when it is bound.)
class Bound {
 public:
  // At these addresses of the device, and `host` of the host's.
  Bound(std::shared_ptr<OrtDevice> device, std::shared_ptr<OrtSession> session, const Ports& ports, const Addresses& there,
        const Addresses& host, const Symbols& sizes);
  void run();  // BackendFailed

 private:
  std::shared_ptr<OrtDevice> device_;
  std::shared_ptr<OrtSession> session_;
  std::vector<Ort::Value> inputs_, outputs_;
  std::int64_t uploads_ = 0, downloads_ = 0;  // of a call
};

// The numbers of a call, on the host, where they stay.
class Numbers {
 public:
  using Sizes = std::vector<std::pair<std::string, std::int64_t>>;  // bytes, by name
  explicit Numbers(const Sizes& sizes);
  bool has(const std::string& name) const { return places_.count(name) > 0; }
  template <typename T>
  T* here(const std::string& name) {  // null where there is none
    return has(name) ? reinterpret_cast<T*>(bytes_.data() + places_.at(name)) : nullptr;
  }

 private:
  std::map<std::string, std::int64_t> places_;
  std::vector<char> bytes_;
};

// What moves lines of bytes: for forks, and pages that are shared.
class LineGraphs {
 public:
  explicit LineGraphs(const OpenLines& open);

  // Makes pools there; they keep this alive.
  static MakeLines pools(std::shared_ptr<LineGraphs> graphs);
  // Copies runs of `run` lines of so many bytes, as `LinePool::copy`; both have so many lines.
  void move(char* to, std::int64_t to_lines, const Lines& there, char* from, std::int64_t from_lines, const Lines& here,
            std::int64_t run, std::int64_t bytes) const;

  std::shared_ptr<OrtDevice> device;

 private:
  std::map<std::string, Ports> ports_;
  std::map<std::string, std::shared_ptr<OrtSession>> sessions_;
};

}  // namespace mythos::engine
