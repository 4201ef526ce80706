// ONNX Runtime's library, opened when it is first needed: where it is differs between a build, an installation and a
// Python environment, and a program that lacks it should say what to install.
#pragma once

#include <onnxruntime_c_api.h>

namespace mythos {

// What OrtGetApiBase() would give if the library were linked. Looked for in this order: the file that MYTHOS_ONNXRUNTIME
// names; libonnxruntime.so.1 beside this code; the Python package onnxruntime of the environment that holds this code;
// the library that the build found; the system's. Throws BackendMissing.
const OrtApiBase& onnxruntime();

}  // namespace mythos
