#include "tensorrt/node.h"

#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>

namespace mythos::tensorrt {
namespace {

using Json = nlohmann::json;
using cuda::Names;
using cuda::Program;
using cuda::Value;

// A document's entries that are for these sizes of the operator.
Json chosen(const Json& all, const std::string& op, const std::string& variant) {
  Json found = Json::array();
  for (const Json& one : all)
    if (one.at("operator") == op && one.at("variant") == variant) found.push_back(one);
  return found;
}

// Of a folder's kernels.json what one node needs.
Json part_of(const Json& whole, const std::string& folder, const std::string& op, const std::string& variant) {
  Json part{{"format_version", whole.at("format_version")},
            {"architectures", whole.at("architectures")},
            {"plans", chosen(whole.at("plans"), op, variant)},
            {"calls", chosen(whole.at("calls"), op, variant)},
            {"operators", Json::array()},
            {"kernels", Json::array()}};
  if (part["plans"].empty() || part["calls"].empty()) {
    std::set<std::string> variants;
    for (const Json& plan : whole.at("plans"))
      if (plan.at("operator") == op) variants.insert(plan.at("variant").get<std::string>());
    std::string there;
    for (const std::string& one : variants) there += (there.empty() ? "" : ", ") + one;
    throw std::invalid_argument(folder + " holds no kernels of mythos::" + op + " for '" + variant +
                                "'; there are: " + (there.empty() ? "none" : there));
  }
  std::set<std::string> launched;
  for (const Json& plan : part["plans"])
    for (const Json& name : plan.at("launches")) launched.insert(name.get<std::string>());
  for (const Json& kernel : whole.at("kernels"))
    if (launched.count(kernel.at("name"))) part["kernels"].push_back(kernel);
  for (const Json& known : whole.at("operators"))
    if (known.at("name") == op) part["operators"].push_back(known);
  for (Json& kernel : part["kernels"])
    for (Json& binary : kernel.at("binaries")) binary.erase("ptx");  // for people; an engine needs none
  return part;
}

// The operator's attributes, as `attributes` gives them. Those that plans are made for have to be theirs.
template <class Find>
Names attributes_of(const cuda::Call& call, const Find& find) {
  Names found;
  for (const auto& [name, real] : call.signature->attributes) {
    const Value value = find(name);
    if (value.real != real) throw std::invalid_argument(name + (real ? " is no float" : " is no integer"));
    found[name] = value;
  }
  for (const auto& [name, size] : call.attributes)
    if (found.at(name).integer != size)
      throw std::invalid_argument(name + " is " + std::to_string(found.at(name).integer) +
                                  ", and the kernels are for " + std::to_string(size));
  return found;
}

// Parses the document into the node, whose program then knows its one call.
Program& parse(Node& node, const std::string& document, const std::string& op) {
  auto program = std::make_shared<Program>();
  program->target = "tensorrt --plugins";
  cuda::parse_program(document, *program);
  if (program->calls.size() != 1 || program->calls[0].signature->name != op)
    throw std::invalid_argument("it describes " + std::to_string(program->calls.size()) + " calls" +
                                (program->calls.empty() ? "" : " of mythos::" + program->calls[0].signature->name));
  node.call = &program->calls[0];
  node.inputs = cuda::inputs_of(*node.call);
  node.program = std::move(program);
  return *node.program;
}

// Takes in every cubin, held to its hash, from where the program says that they are.
void hold(Program& program) {
  std::map<std::string, std::string> held;
  for (const auto& [name, kernel] : program.kernels)
    for (const auto& [capability, binary] : kernel.binaries) held[binary.file] = cuda::code_of(program, binary);
  program.held = std::move(held);
  program.folder.clear();
}

void of_graph(Node& node, const std::string& op, const Given& given) {
  const auto folder = given.texts.find(kKernels), variant = given.texts.find(kVariant);
  if (folder == given.texts.end() || variant == given.texts.end())
    throw std::invalid_argument("the node does not say where its compiled kernels are (kernels, variant)");
  Json part;
  const std::string path = folder->second + "/kernels.json", all = cuda::read_file(path);
  try {
    part = part_of(Json::parse(all), folder->second, op, variant->second);
    Program& program = parse(node, part.dump(), op);
    program.folder = folder->second;
  } catch (const Json::exception& error) {
    throw std::runtime_error(path + " is not what this library launches from: " + error.what() +
                             "; export the model again");
  }
  node.attributes = attributes_of(*node.call, [&](const std::string& name) {
    const auto found = given.numbers.find(name);
    if (found == given.numbers.end()) throw std::invalid_argument("the node has no attribute " + name);
    return found->second;
  });
  Json attributes = Json::object();
  for (const auto& [name, value] : node.attributes)
    value.real ? attributes[name] = value.number : attributes[name] = value.integer;
  part["attributes"] = attributes;
  node.document = part.dump();
}

void of_engine(Node& node, const std::string& op, const Given& given, const std::string& document) {
  try {
    Program& program = parse(node, document, op);
    for (const auto& [name, text] : given.texts)
      if (name != kProgram) program.held[name] = text;
    const Json whole = Json::parse(document);
    const Json& attributes = whole.at("attributes");  // no copy, which recurses as deep as somebody has nested it
    node.attributes = attributes_of(*node.call, [&](const std::string& name) {
      const Json& value = attributes.at(name);
      return value.is_number_integer() ? Value::of(value.get<std::int64_t>()) : Value::of_float(value.get<double>());
    });
    node.document = document;
  } catch (const std::exception& error) {  // nlohmann's among them
    throw std::runtime_error(std::string("what the engine holds is not what this library launches from: ") +
                             error.what() + "; export the model again");
  }
}

}  // namespace

std::shared_ptr<const Node> node_of(const std::string& op, const Given& given) {
  auto node = std::make_shared<Node>();
  const auto document = given.texts.find(kProgram);
  if (document == given.texts.end()) of_graph(*node, op, given);
  else of_engine(*node, op, given, document->second);
  hold(*node->program);
  node->launcher = std::make_unique<cuda::Launcher>(node->program);
  return node;
}

}  // namespace mythos::tensorrt
