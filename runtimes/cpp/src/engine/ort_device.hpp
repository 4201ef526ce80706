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
#include "engine/states.hpp"
#include "ort.hpp"
#include "ports.hpp"

namespace mythos::engine {

using Addresses = std::map<std::string, char*>;  // by port
using OpenLines = std::function<std::shared_ptr<OrtSession>(const std::string&, const Ports&)>;  // of `line_ports`, by name

// A graph with all that it reads and writes.
class Bound {
 public:
  // At these addresses of the device, and `host` of the host's.
  Bound(std::shared_ptr<OrtSession> session, const Ports& ports, const Addresses& there, const Symbols& sizes,
        const Addresses& host = {});
  void run() { session_->run(binding_); }  // BackendFailed

 private:
  std::shared_ptr<OrtSession> session_;
  Ort::IoBinding binding_;
};

class OrtDevice {
 public:
  // `cross`: copies bytes.
  OrtDevice(std::shared_ptr<OrtSession> cross, const Ports& ports) : cross_(std::move(cross)), ports_(ports) {}
  // Not zeros: nothing is read of it before it was written. CapacityError, which says what it was for.
  std::shared_ptr<char> allocate(std::int64_t bytes, const std::string& what) const;
  void upload(char* there, const char* here, std::int64_t bytes);
  void download(char* here, const char* there, std::int64_t bytes);

  std::int64_t uploads = 0, downloads = 0;  // so far

 private:
  std::shared_ptr<OrtSession> cross_;
  Ports ports_;
};

// The numbers of a call, on the host and on the device: one piece, so that one copy takes all of them there.
class Numbers {
 public:
  using Sizes = std::vector<std::pair<std::string, std::int64_t>>;  // bytes, by name
  Numbers(std::shared_ptr<OrtDevice> device, const Sizes& sizes);
  bool has(const std::string& name) const { return places_.count(name) > 0; }
  template <typename T>
  T* here(const std::string& name) {  // null where there is none
    return has(name) ? reinterpret_cast<T*>(here_.data() + places_.at(name)) : nullptr;
  }
  char* there(const std::string& name) const { return there_.get() + places_.at(name); }
  void cross() { device_->upload(there_.get(), here_.data(), static_cast<std::int64_t>(here_.size())); }

 private:
  std::shared_ptr<OrtDevice> device_;
  std::map<std::string, std::int64_t> places_;
  std::vector<char> here_;
  std::shared_ptr<char> there_;
};

// What moves lines of states and pages.
class LineGraphs {
 public:
  LineGraphs(const LoopSpec& spec, const OpenLines& open, std::int64_t most_rows);

  // Makes pools there; they keep this alive.
  static MakeLines pools(std::shared_ptr<LineGraphs> graphs);
  // A batch of rows of a name, [most_rows, ...], for what is written before it is read; nothing crosses.
  std::shared_ptr<char> batch(const std::string& name) const;
  // The same, zeros or ones: one row crosses.
  std::shared_ptr<char> constant(const std::string& name, bool ones) const;
  // Copies lines of every pool of the states into `rows`; `lines` is where their numbers are, int64 [count].
  Bound taking(const States& states, char* lines, std::int64_t count) const;
  // Copies rows, by name, into lines of every pool.
  Bound putting(const States& states, char* lines, std::int64_t count, const Addresses& rows) const;
  // Makes `answered` of `rows`; `early`: which leave early, bool [count].
  Bound resting(char* early, std::int64_t count) const;
  // Copies runs of `run` lines of so many bytes, as `LinePool::copy`; both have so many lines.
  void move(char* to, std::int64_t to_lines, const Lines& there, char* from, std::int64_t from_lines, const Lines& here,
            std::int64_t run, std::int64_t bytes) const;

  const std::shared_ptr<OrtDevice> device;
  const std::int64_t most_rows;  // of a call of the row graphs
  std::map<std::string, std::shared_ptr<char>> rows, ahead;  // what `taking` fills, and what the step makes of it, by name
  std::shared_ptr<char> answered;                            // null where the answer is no sum

 private:
  Bound bound(const std::string& graph, const Addresses& addresses, const Symbols& sizes) const;
  const Port& row_of(const std::string& name) const;
  Addresses pools_of(const States& states) const;

  std::map<std::string, Ports> ports_;
  std::map<std::string, std::shared_ptr<OrtSession>> sessions_;
};

}  // namespace mythos::engine
