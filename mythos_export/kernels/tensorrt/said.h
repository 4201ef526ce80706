// Why a plug-in refused something: nothing is thrown into TensorRT, whose loggers are not the same in all versions.
#pragma once

#include <exception>
#include <string>

namespace mythos::tensorrt {

// Keeps the reason, in one line, for who asks `mythos_plugin_error` in this thread; in a thread that never asked, such as
// one of TensorRT's own, it goes to stderr, too.
void refuse(const std::string& op, const char* why) noexcept;

// What `work` returns, or `otherwise` and a reason.
template <class T, class Work>
T guarded(const std::string& op, T otherwise, const Work& work) noexcept {
  try {
    return work();
  } catch (const std::exception& error) {
    refuse(op, error.what());
  } catch (...) {
    refuse(op, "an error of unknown kind");
  }
  return otherwise;
}

}  // namespace mythos::tensorrt
