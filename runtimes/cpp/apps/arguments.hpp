// The options of `mythos run`, read as Click reads them.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "mythos_runtime.hpp"

struct UsageError {
  std::string text;
};

struct Arguments {
  std::string bundle;
  std::optional<std::string> prompt, ids;
  std::vector<std::string> stop;  // each as it was given: 4,5
  bool json = false, help = false;
  mythos::LoadOptions load;
  mythos::GenerateOptions generate;
  std::string wrong_seed;  // a seed that no 64 bits hold, reported when its turn comes
};

extern const char* const kHelp;

Arguments parse_arguments(int count, char** values);  // throws UsageError
