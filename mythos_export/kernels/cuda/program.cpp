#include "cuda/program.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <stdexcept>

#include "sha256.hpp"

namespace mythos::cuda {
namespace {

using Json = nlohmann::json;

constexpr int kFormatVersion = 4;
constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 30;  // of a cubin
constexpr std::uint64_t kMostShared = 1 << 20;                // of a block
constexpr const char* kLeading = "...";

// A number in a range: what is read here goes to the driver.
std::uint64_t whole(const Json& json, std::uint64_t least, std::uint64_t most) {
  if (json.is_number_unsigned() && json.get<std::uint64_t>() >= least && json.get<std::uint64_t>() <= most)
    return json.get<std::uint64_t>();
  // What is not a number may be nested so deep that writing it out, which recurses, would end the process.
  const std::string found = json.is_number() ? json.dump() : json.type_name();
  throw std::invalid_argument("'" + found + "' where a whole number from " + std::to_string(least) + " to " +
                              std::to_string(most) + " belongs");
}

Argument::Kind kind_of(const std::string& type) {
  if (type[0] == '*') return Argument::Kind::pointer;
  if (type == "i32") return Argument::Kind::i32;
  if (type == "i64") return Argument::Kind::i64;
  if (type == "fp32") return Argument::Kind::fp32;
  throw std::invalid_argument("an argument of the type " + type + ", expected a pointer, i32, i64 or fp32");
}

// What has that name, or an error that says the name.
template <class Map>
const auto& named(const Map& known, const std::string& name, const std::string& what) {
  const auto found = known.find(name);
  if (found == known.end()) throw std::invalid_argument("there is no " + what + " '" + name + "'");
  return found->second;
}

Kernel kernel_of(const Json& json) {
  Kernel kernel;
  kernel.name = json.at("name");
  for (const Json& argument : json.at("arguments")) {
    const auto kind = kind_of(argument.at("type"));
    const std::string value = argument.at("value");
    const bool pointer = kind == Argument::Kind::pointer;
    kernel.arguments.push_back(
        {argument.at("name"), pointer ? value : std::string(), kind, pointer ? Expression() : Expression(value)});
  }
  for (const auto& [name, value] : json.at("constants").items())
    if (!value.is_string())
      kernel.constants[name] = Value::of(value.is_boolean() ? value.get<bool>() : value.get<std::int64_t>());
  for (const Json& extent : json.at("grid")) kernel.grid.emplace_back(extent.get<std::string>());
  if (kernel.grid.size() != 3) throw std::invalid_argument(kernel.name + " has a grid of other than three extents");
  kernel.threads = static_cast<unsigned>(whole(json.at("threads"), 1, 1024));
  for (const Json& binary : json.at("binaries")) {
    if (binary.at("global_scratch_bytes") != 0 || binary.at("profile_scratch_bytes") != 0)
      throw std::invalid_argument(kernel.name + " asks for scratch memory of Triton's own, which is not handed over");
    const std::string architecture = binary.at("architecture");  // sm_86
    const Json& cubin = binary.at("cubin");
    const std::string file = cubin.at("file");
    if (file.empty() || file.find('/') != std::string::npos)
      throw std::invalid_argument("'" + file + "' is no name of a file in this folder");
    kernel.binaries[std::stoi(architecture.substr(architecture.find('_') + 1))] = {
        file, whole(cubin.at("bytes"), 1, kMostBytes), cubin.at("sha256"), binary.at("entry"),
        static_cast<unsigned>(whole(binary.at("shared_bytes"), 0, kMostShared))};
  }
  return kernel;
}

Plan plan_of(const Json& json, const std::map<std::string, Kernel>& kernels) {
  Plan plan{json.at("operator"), json.at("variant"), Expression(json.at("when")), {}, {}, {}};
  for (const Json& derived : json.at("derived"))
    plan.derived.emplace_back(derived.at("name"), Expression(derived.at("value")));
  for (const Json& scratch : json.at("scratch")) {
    plan.scratch.push_back({scratch.at("name"), element_bytes(scratch.at("type")), {}});
    for (const Json& extent : scratch.at("shape")) plan.scratch.back().shape.emplace_back(extent.get<std::string>());
  }
  for (const Json& name : json.at("launches")) plan.launches.push_back(&named(kernels, name, "kernel"));
  return plan;
}

Tensor tensor_of(const Json& json, bool output) {
  Tensor tensor{json.at("name"), json.at("type"), json.at("extents").is_null(), json.at("or_scalar"), false, {}, {}, {}};
  if (!json.at("updates").is_null()) tensor.updates = json.at("updates");
  if (output && tensor.any_extents && tensor.updates.empty())
    throw std::invalid_argument(tensor.name + " is an output without extents, and updates no input that has some");
  if (tensor.any_extents) return tensor;
  for (const Json& extent : json.at("extents")) {
    if (extent == kLeading && tensor.extents.empty()) tensor.leading = true;
    else if (output) tensor.products.emplace_back(extent.get<std::string>());
    else tensor.extents.push_back(extent);
  }
  return tensor;
}

Signature signature_of(const Json& json) {
  Signature signature{json.at("name"), {}, {}, {}, {}};
  for (const Json& tensor : json.at("inputs")) signature.inputs.push_back(tensor_of(tensor, false));
  for (const Json& tensor : json.at("outputs")) signature.outputs.push_back(tensor_of(tensor, true));
  for (const Json& attribute : json.at("attributes"))
    signature.attributes.emplace_back(attribute.at("name"), attribute.at("float").get<bool>());
  for (const auto& [name, value] : json.at("sizes").items()) signature.sizes.emplace_back(name, Expression(value));
  return signature;
}

// Every pointer of the plan's kernels is a tensor of the call, or scratch memory of the plan.
void check_pointers(const Call& call, const Plan& plan) {
  std::set<std::string> there(call.inputs.begin(), call.inputs.end());
  for (const Tensor& output : call.signature->outputs) there.insert(output.name);
  for (const Scratch& scratch : plan.scratch) there.insert(scratch.name);
  for (const Kernel* kernel : plan.launches)
    for (const Argument& argument : kernel->arguments)
      if (argument.kind == Argument::Kind::pointer && !there.count(argument.buffer))
        throw std::invalid_argument(kernel->name + " takes '" + argument.buffer + "', which is no input or output of " +
                                    call.signature->name + ", nor scratch memory");
}

// Every input and attribute of the call is one of the operator's, and what an output updates is one of its inputs, of the
// same type: as many bytes are copied.
void check_names(const Call& call) {
  const Signature& known = *call.signature;
  const auto input = [&](const std::string& name) {
    return std::find_if(known.inputs.begin(), known.inputs.end(), [&](const Tensor& one) { return one.name == name; });
  };
  for (const std::string& name : call.inputs)
    if (input(name) == known.inputs.end()) throw std::invalid_argument(known.name + " has no input '" + name + "'");
  for (const Tensor& output : known.outputs) {
    if (output.updates.empty()) continue;
    if (std::find(call.inputs.begin(), call.inputs.end(), output.updates) == call.inputs.end())
      throw std::invalid_argument(output.name + " updates '" + output.updates + "', which is no input of the call");
    if (const std::string& type = input(output.updates)->type; type != output.type)
      throw std::invalid_argument(output.name + " is " + output.type + " and updates '" + output.updates + "', which is " +
                                  type);
  }
  for (const auto& [name, value] : call.attributes)
    if (std::none_of(known.attributes.begin(), known.attributes.end(), [&](const auto& one) { return one.first == name; }))
      throw std::invalid_argument(known.name + " has no attribute '" + name + "'");
}

Call call_of(const Json& json, const Program& program) {
  Call call{&named(program.signatures, json.at("operator"), "operator"), json.at("variant"), json.at("format"), json.at("floats"),
            json.at("stored"), json.at("attributes"), json.at("inputs"), {}, {}};
  for (const auto& [name, sizes] : json.at("trailing").items())
    for (const Json& size : sizes) call.trailing[name].push_back(size.is_null() ? -1 : size.get<std::int64_t>());
  for (const Plan& plan : program.plans)
    if (plan.op == call.signature->name && plan.variant == call.variant) call.plans.push_back(&plan);
  if (call.plans.empty()) throw std::invalid_argument("no plan of " + call.signature->name + " for " + call.variant);
  check_names(call);
  for (const Plan* plan : call.plans) check_pointers(call, *plan);
  return call;
}

}  // namespace

std::int64_t element_bytes(const std::string& type) {
  if (type == "i64") return 8;
  if (type == "fp32" || type == "i32") return 4;
  if (type == "fp16" || type == "bf16") return 2;
  if (type == "i8" || type == "u8" || type == "i1") return 1;
  throw std::invalid_argument("memory of the type " + type + ", expected fp32, fp16, bf16, i64, i32, i8, u8 or i1");
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream bytes;
  bytes << file.rdbuf();
  if (!file) throw std::runtime_error(path + " cannot be read; the bundle is damaged: export the model again");
  return bytes.str();
}

std::string code_of(const Program& program, const Binary& binary) {
  const bool on_disk = !program.folder.empty();
  const auto found = program.held.find(binary.file);
  if (!on_disk && found == program.held.end()) throw std::runtime_error("the engine lacks " + binary.file);
  const std::string path = program.folder + "/" + binary.file;
  std::string code = on_disk ? read_file(path) : found->second;
  Sha256 hash;
  hash.update(reinterpret_cast<const unsigned char*>(code.data()), code.size());
  if (code.size() == binary.bytes && hex(hash.digest()) == binary.sha256) return code;
  throw std::runtime_error(
      on_disk ? path + " is not what kernels.json describes; the bundle is damaged: export the model again"
              : "the engine's " + binary.file + " is not what its plug-in describes; the engine is damaged: export the "
                "model again");
}

void parse_program(const std::string& text, Program& program) {
  const Json json = Json::parse(text);
  const int version = json.at("format_version");
  if (version != kFormatVersion)
    throw std::invalid_argument("format version " + std::to_string(version) + ", this library knows " +
                                std::to_string(kFormatVersion));
  program.architectures = json.at("architectures");
  for (const Json& kernel : json.at("kernels")) program.kernels.emplace(kernel.at("name"), kernel_of(kernel));
  for (const Json& plan : json.at("plans")) program.plans.push_back(plan_of(plan, program.kernels));
  for (const Json& known : json.at("operators")) program.signatures.emplace(known.at("name"), signature_of(known));
  for (const Json& call : json.at("calls")) program.calls.push_back(call_of(call, program));
}

void read_program(const std::string& folder, Program& program) {
  const std::string path = folder + "/kernels.json";
  try {
    program.folder = folder;
    parse_program(read_file(path), program);
  } catch (const std::exception& error) {  // nlohmann's among them
    throw std::runtime_error(path + " is not what this library launches from: " + error.what() +
                             "; export the model again");
  }
}

}  // namespace mythos::cuda
