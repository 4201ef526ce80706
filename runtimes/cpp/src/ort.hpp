// A graph in ONNX Runtime (ort.py): the session of the backend, and what the engine binds to.
#pragma once

#include <functional>
#include <memory>

#include "linked.hpp"
#include "ort_opening.hpp"
#include "session.hpp"

namespace mythos {

class OrtSession : public Session, public std::enable_shared_from_this<OrtSession> {
 public:
  // See `open_graph`. BundleError: the graph is damaged, or its ports are not these. BackendMissing: no such provider, no
  // kernel for an operator.
  OrtSession(const std::string& file, const Ports& ports, const LoadOptions& options, Role role,
             std::shared_ptr<const Linked> weights);

  std::vector<Tensor> run(const std::vector<Tensor>& inputs) override;
  // On what is bound (BackendFailed).
  void run(const Ort::IoBinding& binding);
  // On these tensors, in the ports' order, wherever they are: those of the host cross (BackendFailed).
  void run(const std::vector<Ort::Value>& inputs, std::vector<Ort::Value>& outputs);
  Ort::IoBinding binding() { return Ort::IoBinding(session_); }
  // Gives a binding the weights that are the same at every call.
  void bind_linked(Ort::IoBinding& binding) const;
  // A tensor that is where `data` does: on the host, and where the session runs.
  Ort::Value tensor(void* data, const std::string& dtype, const std::vector<std::int64_t>& shape) const;
  Ort::Value tensor_there(void* data, const std::string& dtype, const std::vector<std::int64_t>& shape) const;
  // Memory where the session runs, which it outlives; `refused` is called where there is none, and throws.
  std::shared_ptr<char> allocate_there(std::size_t bytes, const std::function<void()>& refused);

 private:
  // The weights that the graph takes as inputs are noted in `linked_`.
  void compare(const std::string& file, const std::vector<Port>& expected, bool inputs);

  Ort::Session session_;
  Ports ports_;
  Ort::MemoryInfo memory_, there_;  // the host's, and that of where it runs
  std::shared_ptr<const Linked> weights_;
  std::vector<std::pair<std::string, Ort::Value>> linked_;
  std::vector<const char*> input_names_, output_names_;
  bool plugins_;  // whether the graph calls some, who say themselves why they refuse
};

// As the constructor, after holding the library against the headers that this was built with (BackendMissing).
// `weights`: those that the graph takes as inputs, if it does.
std::unique_ptr<OrtSession> open_graph(const std::string& file, const Ports& ports, const LoadOptions& options,
                                       Role role, std::shared_ptr<const Linked> weights = nullptr);

}  // namespace mythos
