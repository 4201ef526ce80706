#include "engine/line_pool.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "mythos_runtime.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace mythos::engine {
namespace {

constexpr std::size_t kWorthACall = 256 << 10;

class HostLines : public LinePool {
 public:
  HostLines(std::int64_t lines, std::int64_t bytes, const std::string& what)
      : bytes_(bytes), memory_(zeros({lines, bytes}, what)) {}
  char* data() const override { return memory_.get(); }
  bool on_host() const override { return true; }
  void copy(const Lines& to, const LinePool& source, const Lines& from, std::int64_t run) override {
    for (std::size_t i = 0; i < to.size(); ++i)
      std::memcpy(data() + to[i] * bytes_, source.data() + from[i] * bytes_, static_cast<std::size_t>(run * bytes_));
  }

 private:
  std::int64_t bytes_;
  Bytes memory_;
};

}  // namespace

void no_memory_for(double bytes, const std::string& what) {
  char text[40];
  std::snprintf(text, sizeof text, "%.1f GiB", bytes / (1 << 30));
  throw CapacityError("the engine's " + what + " need " + text + ", which this machine does not give (out of memory); give "
                      "it less memory, or ask for less");
}

Bytes zeros(const std::vector<std::int64_t>& sizes, const std::string& what) {
  std::size_t bytes = 1;
  double wanted = 1;
  bool fits = true;
  for (const std::int64_t size : sizes) {
    fits = fits && !__builtin_mul_overflow(bytes, static_cast<std::size_t>(size), &bytes);
    wanted *= static_cast<double>(size);
  }
  Bytes memory(fits && bytes <= SIZE_MAX / 2 ? static_cast<char*>(std::calloc(std::max<std::size_t>(bytes, 1), 1)) : nullptr);
  if (!memory) no_memory_for(wanted, what);
  return memory;
}

void give_back(char* memory, std::size_t bytes) {
#if defined(__linux__)
  static const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const std::size_t before = (page - reinterpret_cast<std::uintptr_t>(memory) % page) % page;
  if (bytes < kWorthACall || bytes < before + page) return;
  madvise(memory + before, (bytes - before) / page * page, MADV_DONTNEED);  // where it fails they stay
#else
  (void)memory, (void)bytes;
#endif
}

std::unique_ptr<LinePool> host_lines(std::int64_t lines, std::int64_t bytes, const std::string& what) {
  return std::make_unique<HostLines>(lines, bytes, what);
}

}  // namespace mythos::engine
