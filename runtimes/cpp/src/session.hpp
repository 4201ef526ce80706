// What runs a graph: one interface, and a file for each engine (session.py).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "manifest.hpp"
#include "ports.hpp"

namespace mythos {

class Session {
 public:
  virtual ~Session() = default;
  // Runs the graph once: inputs in the ports' order, only read; outputs in the ports' order (BackendFailed).
  virtual std::vector<Tensor> run(const std::vector<Tensor>& inputs) = 0;
  std::string name;  // of the backend
  // One line for people: library and version, device, threads.
  std::string description;
  // What runs the operators of the domain mythos: "native", "portable" (the bodies in the graph) or "engine".
  std::string operators = "engine";
  // ONNX Runtime on the CPU; and whether the engine's row graphs run in the same way.
  bool on_cpu = false, runs_rows = false;
};

struct Bundle {
  std::string folder;  // as Python's pathlib prints it
  Manifest manifest;
};

// Whether the content of files outside of a bundle that are named is held to the manifest.
inline bool hashes_weights(const LoadOptions& options) {
  return (options.verify_weights.empty() ? options.verify : options.verify_weights) == "hashes";
}
void check_options(const LoadOptions& options);
std::unique_ptr<Session> open_session(const Bundle& bundle, const LoadOptions& options);

// ort_library.cpp: of the ONNX Runtime that is found here (BackendMissing).
const char* onnxruntime_version();

// ort.cpp. A file may wrap a TensorRT-RTX engine, and that may call plug-ins.
enum class Wraps { kNothing, kEngine, kEngineOfPlugins };
std::unique_ptr<Session> open_onnxruntime(const std::string& file, const Ports& ports,
                                          const LoadOptions& options, Wraps wraps = Wraps::kNothing,
                                          std::shared_ptr<const Linked> weights = nullptr);
// ort_opening.cpp. What this ONNX Runtime lacks to run a TensorRT-RTX engine, in a sentence; empty where it lacks nothing.
std::string missing_for_rtx();
// tensorrt.cpp
std::unique_ptr<Session> open_tensorrt(const Bundle& bundle, const LoadOptions& options);
// tensorrt_native.cpp, only where NvInfer.h was found. `plugins`: the library that the engine calls; empty: none.
std::unique_ptr<Session> open_native_tensorrt(const std::string& file, const Ports& ports, const std::string& plugins);

std::unique_ptr<Tokenizer> make_byte_tokenizer(std::int64_t vocab_size);

}  // namespace mythos
