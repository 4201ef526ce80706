// Lines of memory where the row graphs run: what pages and states are made of (ort_device/pools.py).
#pragma once

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace mythos::engine {

using Lines = std::vector<std::int64_t>;

struct Free {
  void operator()(char* memory) const { std::free(memory); }
};
using Bytes = std::unique_ptr<char, Free>;
// Zeros that the system gives as they are touched (CapacityError). The sizes are multiplied.
Bytes zeros(const std::vector<std::int64_t>& sizes, const std::string& what);
// Gives the pages of these bytes back to the system, where that is worth a call; they hold zeros from then on, or what they
// held.
void give_back(char* memory, std::size_t bytes);
// Throws the CapacityError of memory for something that was not to be had.
[[noreturn]] void no_memory_for(double bytes, const std::string& what);

class LinePool {
 public:
  virtual ~LinePool() = default;
  // Where it begins, as a graph is given it. Of a device that is no address of the host's.
  virtual char* data() const = 0;
  virtual bool on_host() const { return false; }
  // Copies runs of `run` lines, those of a pool that begin at `from`, to where `to` says here. Lines are as wide in both.
  virtual void copy(const Lines& to, const LinePool& source, const Lines& from, std::int64_t run) = 0;
};

// Makes a pool of so many lines of so many bytes; `what` is for the error (CapacityError).
using MakeLines = std::function<std::unique_ptr<LinePool>(std::int64_t lines, std::int64_t bytes, const std::string& what)>;
std::unique_ptr<LinePool> host_lines(std::int64_t lines, std::int64_t bytes, const std::string& what);

}  // namespace mythos::engine
