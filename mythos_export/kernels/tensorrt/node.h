// What a plug-in and its copies share: the kernels of one node, and what an engine keeps of it. No TensorRT in here.
//
// A graph's node says where its kernels are: `kernels`, a folder that triton_build wrote, and `variant`, which of the
// plans there are for its sizes. What an engine keeps is `program`, that part of the folder's kernels.json, and a field
// for each cubin, under the name that its file had.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cuda/call.h"

namespace mythos::tensorrt {

constexpr const char* kKernels = "kernels";
constexpr const char* kVariant = "variant";
constexpr const char* kProgram = "program";

// Fields as TensorRT hands them over: characters, without the zeros that end them, and numbers.
struct Given {
  std::map<std::string, std::string> texts;
  cuda::Names numbers;
};

struct Node {
  std::shared_ptr<cuda::Program> program;  // whose `held` has the cubins
  const cuda::Call* call;
  cuda::Names attributes;
  std::vector<const cuda::Tensor*> inputs;
  std::string document;  // the field `program`
  std::unique_ptr<cuda::Launcher> launcher;
};

// The node of an operator from a graph, or from an engine where there is a `program`. Every cubin is held to its hash.
// Throws std::exception's, each with one sentence.
std::shared_ptr<const Node> node_of(const std::string& op, const Given& given);

}  // namespace mythos::tensorrt
