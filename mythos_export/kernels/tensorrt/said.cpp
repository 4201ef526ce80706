#include "tensorrt/said.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <mutex>

namespace mythos::tensorrt {
namespace {

struct Said {
  std::mutex mutex;
  std::string last;
  bool asked = false;
};

Said& said() {  // never destroyed: plug-ins may outlive this library's own statics
  static auto& kept = *new Said;
  return kept;
}

}  // namespace

void refuse(const std::string& op, const char* why) noexcept {
  try {
    std::string line = "the plug-in mythos::" + op + ": " + why;
    std::replace_if(line.begin(), line.end(), [](unsigned char c) { return c < ' '; }, ' ');
    const std::lock_guard<std::mutex> lock(said().mutex);
    if (!said().asked) std::fprintf(stderr, "%s\n", line.c_str());
    said().last = std::move(line);
  } catch (const std::exception&) {  // no memory for words
  }
}

}  // namespace mythos::tensorrt

// Writes what was refused last, and not told yet, into `words` of `size` bytes, cut if need be and ended by a zero.
// Returns its length, 0 where nothing was refused.
extern "C" __attribute__((visibility("default"))) std::size_t mythos_plugin_error(char* words, std::size_t size) {
  auto& said = mythos::tensorrt::said();
  const std::lock_guard<std::mutex> lock(said.mutex);
  said.asked = true;
  const std::size_t length = said.last.size();
  if (!words || !size) return length;
  const std::size_t told = std::min(length, size - 1);
  std::memcpy(words, said.last.data(), told);
  words[told] = '\0';
  said.last.clear();
  return length;
}
