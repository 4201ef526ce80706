#include "session.hpp"

#include <array>

#include "text.hpp"

namespace mythos {
namespace {

struct Backend {
  const char *name, *suffix, *prefer;
};
constexpr std::array<Backend, 3> kBackends{{{"onnxruntime", ".onnx", "model.onnx"},
                                            {"tensorrt", ".engine", ""},
                                            {"eager", ".pt2", "model.pt2"}}};
constexpr std::array<std::array<const char*, 2>, 4> kAliases{
    {{"onnx", "onnxruntime"}, {"ort", "onnxruntime"}, {"torch", "eager"}, {"trt", "tensorrt"}}};

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

const Backend& choose(const Manifest& manifest, const std::string& asked) {
  std::string name = asked;
  for (const auto& [alias, full] : kAliases)
    if (name == alias) name = full;
  for (const Backend& backend : kBackends) {
    if (backend.name == name) return backend;
    if (name.empty())
      for (const auto& file : manifest.files)
        if (ends_with(file.first, backend.suffix)) return backend;
  }
  if (name.empty())
    throw BundleError("the manifest lists no file that can be run (.onnx, .engine, .pt2); export the model again");
  throw RequestError("there is no backend " + py_repr(asked) +
                     "; the backends are onnxruntime, tensorrt, eager");
}

std::string graph_file(const Bundle& bundle, const Backend& backend) {
  const std::string path = bundle.manifest.file_ending(backend.suffix, backend.prefer);
  if (!path.empty()) return plain_path(bundle.folder + "/" + path);
  int count = 0;
  for (const auto& file : bundle.manifest.files) count += ends_with(file.first, backend.suffix);
  throw BundleError(std::string("the backend ") + backend.name + " needs " + backend.prefer + ", but the bundle has " +
                    (count ? std::to_string(count) + " files" : "no file") + " in " + backend.suffix);
}

}  // namespace

void check_options(const LoadOptions& options) {
  if (options.threads && *options.threads < 1)
    throw RequestError("threads should be a positive integer or None, found " + std::to_string(*options.threads));
  if (options.provider != "auto" && options.provider != "cpu" && options.provider != "cuda")
    throw RequestError("there is no provider " + py_repr(options.provider) +
                       "; the providers are auto, cpu, cuda");
  if (options.verify != "hashes" && options.verify != "sizes")
    throw RequestError("verify should be hashes or sizes, found " + py_repr(options.verify));
  if (const std::string& weights = options.verify_weights; !weights.empty() && weights != "hashes" && weights != "sizes")
    throw RequestError("verify_weights should be hashes or sizes, found " + py_repr(weights));
}

std::unique_ptr<Session> open_session(const Bundle& bundle, const LoadOptions& options) {
  const Backend& backend = choose(bundle.manifest, options.backend);
  const std::string name = backend.name;
  if (name == "eager")
    throw BackendMissing("the backend eager needs PyTorch, which this runtime does without; use mythos run, or "
                         "--backend onnxruntime here");
  std::unique_ptr<Session> session;
  if (name == "tensorrt") {
    session = open_tensorrt(bundle, options);
  } else {
    auto weights = open_linked(bundle.folder, bundle.manifest.links, options.weights, hashes_weights(options));
    session = open_onnxruntime(graph_file(bundle, backend), bundle.manifest.spec->ports(), options, Wraps::kNothing, std::move(weights));
  }
  session->name = name;
  return session;
}

}  // namespace mythos
