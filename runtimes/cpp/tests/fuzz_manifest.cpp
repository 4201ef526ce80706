// The manifest reader must end any input with a manifest or a BundleError.
//
// With clang this is a libFuzzer target. Built with MYTHOS_FUZZ_MAIN (any compiler) it mutates its seeds by itself, from
// a fixed start: `mythos_fuzz SECONDS FILE...`.
#include <cstdint>
#include <cstdlib>

#include "manifest.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    mythos::parse_manifest({reinterpret_cast<const char*>(data), size});
  } catch (const mythos::BundleError& error) {
    if (std::string(error.what()).find('\n') != std::string::npos) std::abort();  // an error is one line
  }
  return 0;
}

#ifdef MYTHOS_FUZZ_MAIN
#include <chrono>
#include <fstream>
#include <iostream>
#include <iterator>
#include <random>

int main(int count, char** values) {
  std::vector<std::string> seeds{"{}", "[[[[]]]]", "{\"format_version\": 2}"};
  for (int i = 2; i < count; ++i) {
    std::ifstream file(values[i], std::ios::binary);
    seeds.emplace_back((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  }
  const std::vector<std::string> words{"null", "true", "-1", "1e999", "NaN", "9223372036854775808", "\"\"", "{}", "[]",
                                       "\"\\ud800\"", "\"../x\"", "0.5", "\xff", "\xc3", "\\u", ",", ":", "\"", "]", "}"};
  std::mt19937_64 random(1);
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % (n ? n : 1)); };
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(count > 1 ? std::atoi(values[1]) : 60);
  std::uint64_t runs = 0;
  while (std::chrono::steady_clock::now() < end) {
    std::string text = seeds[below(seeds.size())];
    for (std::size_t changes = 1 + below(4); changes; --changes) {
      const std::size_t at = below(text.size() + 1), length = below(8);
      switch (below(5)) {
        case 0: text.resize(at); break;
        case 1: text.erase(at, length); break;
        case 2: text.insert(at, words[below(words.size())]); break;
        case 3: text.replace(at, length, words[below(words.size())]); break;
        default: if (at < text.size()) text[at] = static_cast<char>(random());
      }
    }
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(text.data()), text.size());
    ++runs;
  }
  std::cout << runs << " inputs, no finding\n";
}
#endif
