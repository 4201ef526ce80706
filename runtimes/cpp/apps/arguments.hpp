// The options of `mythos run`, as far as they need no Python.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "mythos_runtime.hpp"

struct Arguments {
  std::string bundle;
  std::optional<std::string> prompt, ids;
  std::vector<std::string> stop;  // each as it was given: 4,5
  bool json = false;
  mythos::LoadOptions load;
  mythos::GenerateOptions generate;
};

struct UsageError {
  std::string text;
};

// Throws UsageError; `answer`, where it is not empty, is all that was asked for: the help or the version.
Arguments parse_arguments(int count, const char* const* values, std::string& answer);
