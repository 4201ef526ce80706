// The ports of the graphs that move lines where ONNX Runtime runs the row graphs on a device (line_ports.py).
#pragma once

#include <map>
#include <string>

#include "mythos_spec.hpp"

namespace mythos {

inline constexpr const char *kTake = "take", *kPut = "put", *kRest = "rest", *kTakeBytes = "take_bytes",
                            *kPutBytes = "put_bytes", *kCross = "cross";

// By graph, of a spec whose states are those of `row_contradiction`.
std::map<std::string, Ports> line_ports(const LoopSpec& spec);
// A graph's file in a bundle.
std::string line_file(const std::string& graph);

}  // namespace mythos
