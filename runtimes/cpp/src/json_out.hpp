// Lines of JSON as Python's json.dumps writes them.
#pragma once
#include <string>
#include <vector>

#include "json.hpp"

namespace mythos {

template <typename Number>
std::string json_list(const std::vector<Number>& values) {
  std::string text = "[";
  for (std::size_t i = 0; i < values.size(); ++i) text += (i ? ", " : "") + std::to_string(values[i]);
  return text + "]";
}

}  // namespace mythos
