// SHA-256 (FIPS 180-4) of a stream.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace mythos {

class Sha256 {
 public:
  void update(const unsigned char* data, std::size_t size);
  std::string hex();  // once, at the end

 private:
  void block(const unsigned char* data);
  std::array<std::uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<unsigned char, 64> rest_{};
  std::size_t held_ = 0;
  std::uint64_t total_ = 0;
};

}  // namespace mythos
