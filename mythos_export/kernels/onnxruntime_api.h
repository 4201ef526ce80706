// What both libraries of operators do first: take the table of functions that ONNX Runtime hands them, which they are not
// linked to.
#pragma once

#define ORT_API_MANUAL_INIT
#include <onnxruntime_cxx_api.h>
#undef ORT_API_MANUAL_INIT

#include <string>

namespace mythos {

// Has the calls of this library go through the table. Returns an error where this ONNX Runtime is older than the headers,
// else null.
inline OrtStatus* take_api(const OrtApiBase* base) {
  const OrtApi* api = base->GetApi(ORT_API_VERSION);
  if (!api) {
    // Making an error needs a table too: the first version has held this function ever since.
    const std::string message = "the mythos operators need ONNX Runtime 1." + std::to_string(ORT_API_VERSION) +
                                " or newer, and this is " + base->GetVersionString() + ": install a newer onnxruntime";
    return base->GetApi(1)->CreateStatus(ORT_FAIL, message.c_str());
  }
  Ort::InitApi(api);
  return nullptr;
}

}  // namespace mythos
