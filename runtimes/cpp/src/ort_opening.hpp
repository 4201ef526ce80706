// A graph opened in ONNX Runtime: in which provider, with what threads and operators, and why it cannot be (ort_opening.py).
#pragma once

#define ORT_API_MANUAL_INIT  // the library may be older than the headers: ask before the first call
#include <onnxruntime_cxx_api.h>
#undef ORT_API_MANUAL_INIT

#include <string>

#include "session.hpp"

namespace mythos {

constexpr const char* kCpu = "CPUExecutionProvider";
constexpr const char* kCuda = "CUDAExecutionProvider";

// What a graph is: of a model; one that moves lines, and calls no operator of ours; a file that wraps a TensorRT-RTX engine,
// which may call plug-ins.
enum class Role { kModel, kLines, kEngine, kEngineOfPlugins };

// Before the first call of ONNX Runtime (BackendMissing: its library is older than the headers that this was built with).
void require_api();

struct Inference {
  Ort::Session session{nullptr};
  std::string provider, library;  // the first provider, and the library of its operators, or "": their portable bodies
};

// A graph opened in the provider that the options ask for, with the operators that there is a library of. BundleError: the
// graph is damaged. BackendMissing: no such provider, the library does not load, or there is no kernel for an operator.
Inference open_inference(const std::string& file, const LoadOptions& options, Role role);

// What the environment asks for and such a session does not have, as the end of its description.
std::string not_taken(bool on_cpu, const std::string& choice);

// Whether ONNX Runtime runs the row graphs in its CUDA provider: where MYTHOS_CUDA_OPS asks for the kernels there, and the
// provider is CUDA, or left to a runtime that has it (RequestError: the variable is set to what means nothing).
bool rows_on_cuda(const LoadOptions& options);

// The library with native kernels of the mythos operators for the CPU, or "" to run their portable function bodies
// (BackendMissing: one was named, and is not there).
std::string find_op_library(const std::string& choice);

// An error's first line, in the form that ONNX Runtime's Python binding gives it.
std::string first_line(const Ort::Exception& error);

}  // namespace mythos
