// The manifest reader alone: `mythos_parse FILE` parses and prints "ok" or the error, as Python words it.
#include <fstream>
#include <iostream>
#include <iterator>

#include "manifest.hpp"

int main(int count, char** values) {
  if (count != 2) return 2;
  std::ifstream file(values[1], std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  // Several documents in one file, each after a line with its size, so that a test needs one process.
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t line = text.find('\n', at);
    const auto size = static_cast<std::size_t>(std::stoull(text.substr(at, line - at)));
    try {
      mythos::parse_manifest(std::string_view(text).substr(line + 1, size));
      std::cout << "ok\n";
    } catch (const mythos::Error& error) {
      std::cout << error.what() << "\n";
    }
    at = line + 1 + size;
  }
}
