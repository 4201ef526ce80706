// What a bundle's kernels.json says: kernels, the plans that launch them, and the operators and calls that have plans
// (launch_plan.py, signatures.py; triton_build writes it).
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "cuda/expression.h"

namespace mythos::cuda {

struct Argument {
  std::string name, buffer;  // `buffer`: of a pointer
  enum class Kind { pointer, i32, i64, fp32 } kind;
  Expression scalar;
};

struct Binary {
  std::string file;  // a name in the folder
  std::uint64_t bytes;
  std::string sha256, entry;
  unsigned shared_bytes;
};

struct Kernel {
  std::string name;
  std::vector<Argument> arguments;
  Names constants;  // those that are numbers
  std::vector<Expression> grid;
  unsigned threads;
  std::map<int, Binary> binaries;  // by compute capability, 86 for 8.6
};

struct Scratch {
  std::string name;
  std::int64_t element;  // bytes
  std::vector<Expression> shape;
};

struct Plan {
  std::string op, variant;
  Expression when;
  std::vector<std::pair<std::string, Expression>> derived;
  std::vector<Scratch> scratch;
  std::vector<const Kernel*> launches;
};

struct Tensor {
  std::string name, type;            // see signatures.py
  bool any_extents, or_scalar, leading;
  std::vector<std::string> extents;  // behind the leading ones, if there are
  std::vector<Expression> products;  // the same, of an output
  std::string updates;               // of an output: the input that it is, with what the kernels write
};

struct Signature {
  std::string name;
  std::vector<Tensor> inputs, outputs;
  std::vector<std::pair<std::string, bool>> attributes;  // whether it is a float
  std::vector<std::pair<std::string, Expression>> sizes;
};

// What one call of the graphs has: fixed sizes, and the plans for them.
struct Call {
  const Signature* signature;
  std::string variant, format, floats, stored;
  std::map<std::string, std::int64_t> attributes;
  std::vector<std::string> inputs;                                    // those that it gives
  std::map<std::string, std::vector<std::int64_t>> trailing;          // sizes of their last dimensions, -1 for any
  std::vector<const Plan*> plans;                                     // in order of preference
};

struct Program {
  std::string folder;                       // that holds kernels.json and the cubins; of an engine's program none
  std::map<std::string, std::string> held;  // an engine's cubins, by the names that files would have
  std::string target = "cuda";              // of the export that makes it
  std::vector<std::string> architectures;
  std::map<std::string, Kernel> kernels;
  std::vector<Plan> plans;
  std::map<std::string, Signature> signatures;
  std::vector<Call> calls;

  Program() = default;
  Program(const Program&) = delete;  // its parts point at each other
  Program& operator=(const Program&) = delete;
};

// Reads `folder`/kernels.json into an empty program. Throws std::runtime_error, which names the file and what is wrong.
void read_program(const std::string& folder, Program& program);
// The same from the text of a kernels.json. Throws std::exception's.
void parse_program(const std::string& text, Program& program);

// A kernel's code, as long and with the hash that its description says: the driver reads to the end that a damaged one
// claims. Throws std::runtime_error.
std::string code_of(const Program& program, const Binary& binary);

// Of what the launcher allocates or copies. Throws std::invalid_argument for another type.
std::int64_t element_bytes(const std::string& type);

// The bytes of a file. Throws std::runtime_error.
std::string read_file(const std::string& path);

}  // namespace mythos::cuda
