// Chooses drafts as histories say, that the parity test deals: every line of stdin is a history, every line of stdout its
// choices. tests/mythos_runtime_cpp/test_cpp_speculation.py says what a history holds.
#include <exception>
#include <iostream>
#include <optional>
#include <string>

#include <nlohmann/json.hpp>

#include "engine/speculation.hpp"

namespace {

using nlohmann::json;

json choices(const json& history) {
  const json& fixed = history.at("fixed");
  mythos::engine::Speculation speculation(history.at("loops").get<std::int64_t>(),
                                          fixed.is_null() ? std::nullopt : std::optional(fixed.get<std::int64_t>()));
  json chosen = json::array();
  for (const json& event : history.at("events")) {
    const std::string name = event[0];
    if (name == "call") {  // of a graph: rows, seconds, and how many were alike
      speculation.speed.lines[event[1].get<std::string>()].add(event[2], event[3], event[4]);
    } else if (name == "choose") {
      chosen.push_back(speculation.choose(event[1], event[2]));
    } else if (name == "saw") {
      speculation.saw(event[1], event[2], event[3], event[4]);
    } else {
      speculation.went(event[1]);
    }
  }
  return chosen;
}

}  // namespace

int main() {
  try {
    for (std::string line; std::getline(std::cin, line);) std::cout << choices(json::parse(line)) << std::endl;
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 3;
  }
}
