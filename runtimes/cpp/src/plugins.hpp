// The plug-ins that an engine built with --plugins calls (mythos_runtime/tensorrt/plugins.py): a library beside this one.
#pragma once

#include <string>

namespace mythos {

// A file of ours: beside the library that holds this code, where the build and the installation put it, or a folder above,
// as in the Python package. Empty where there is none.
std::string beside_this_code(const char* name);

// The library that TensorRT is to load for `label`. BackendMissing: it is not there.
std::string plugin_library(const std::string& label);

// What a plug-in refused in this thread since it asked last, as the end of a sentence: ": " and the reason, or nothing.
std::string plugin_refusal();

// Has the TensorRT-RTX of this process, which ONNX Runtime brought, load the plug-ins, once. BackendMissing: they are not
// there, there is no TensorRT-RTX, it is none of those whose registry is known, or it does not take them.
void load_rtx_plugins(const std::string& label);

}  // namespace mythos
