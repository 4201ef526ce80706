// The ports of the graphs that reach states and pages where ONNX Runtime runs the row graphs on a device (line_ports.py).
#pragma once

#include <map>
#include <string>
#include <vector>

#include "mythos_spec.hpp"

namespace mythos {

inline constexpr const char *kTakeBytes = "take_bytes", *kPutBytes = "put_bytes";

// Of the graphs that move lines of bytes, by graph.
std::map<std::string, Ports> move_ports();
// Of the row graphs on lines, by the row graph, of a spec whose states are those of `row_contradiction`.
std::map<std::string, Ports> rows_on_lines(const LoopSpec& spec);
// A graph's file in a bundle, and all of them in the order of their names.
std::string move_file(const std::string& graph);
std::string rows_file(const std::string& graph);
std::vector<std::string> device_files();

}  // namespace mythos
