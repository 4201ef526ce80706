// Puts the kernels of a call into a stream, as its plan says. The same rule as launch.py, which tests hold it to.
#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "cuda/driver.h"
#include "cuda/program.h"

namespace mythos::cuda {

using Buffers = std::unordered_map<std::string, Address>;

// The kernels of a program. They are loaded when a plan first needs them, into the context that is current then, whose GPU
// may be another one than that of the next call; several threads may call.
class Launcher {
 public:
  explicit Launcher(std::shared_ptr<const Program> program) : program_(std::move(program)) {}

  // Args: buffers, addresses of the operator's inputs and results; sizes, what the call's plans call theirs; a stream of
  // the current context. Scratch memory is the stream's own.
  // Throws std::exception's: there is no GPU, or none that the kernels were compiled for, or the driver refuses.
  void run(const Call& call, Buffers buffers, Names sizes, void* stream);

 private:
  struct Loaded {
    void* function;
    unsigned shared_bytes;
  };
  struct Context {
    int capability = 0;
    std::unordered_map<std::string, Loaded> loaded;
  };
  Loaded load(const Driver& driver, const Kernel& kernel);

  std::shared_ptr<const Program> program_;
  std::mutex mutex_;
  std::unordered_map<void*, Context> contexts_;  // ONNX Runtime's and TensorRT's are the devices' primary ones, which stay
};

}  // namespace mythos::cuda
