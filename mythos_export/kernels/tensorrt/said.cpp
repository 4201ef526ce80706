#include "tensorrt/said.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

namespace mythos::tensorrt {
namespace {

// A thread's: who called TensorRT asks in the thread that called, so that two sessions do not take each other's reasons.
// Plain memory, for a plug-in may be refused after a thread's own objects are gone.
struct Said {
  char last[4000];
  std::size_t length;
  bool asked;
};
thread_local Said said;

}  // namespace

void refuse(const std::string& op, const char* why) noexcept {
  const int length = std::snprintf(said.last, sizeof said.last, "the plug-in mythos::%s: %s", op.c_str(), why);
  said.length = std::min(static_cast<std::size_t>(std::max(length, 0)), sizeof said.last - 1);
  std::replace_if(said.last, said.last + said.length, [](unsigned char c) { return c < ' '; }, ' ');
  if (!said.asked) std::fprintf(stderr, "%s\n", said.last);
}

}  // namespace mythos::tensorrt

// Writes what was refused last in this thread, and not told yet, into `words` of `size` bytes, cut if need be and ended
// by a zero. Returns its length, 0 where nothing was refused.
extern "C" __attribute__((visibility("default"))) std::size_t mythos_plugin_error(char* words, std::size_t size) {
  auto& said = mythos::tensorrt::said;
  said.asked = true;
  const std::size_t length = said.length;
  if (!words || !size) return length;
  const std::size_t told = std::min(length, size - 1);
  std::memcpy(words, said.last, told);
  words[told] = '\0';
  said.length = 0;
  return length;
}
