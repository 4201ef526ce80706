// SHA-256 (FIPS 180-4) of a stream: OpenSSL's, which uses the processor's instructions for it, or our own.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#ifdef MYTHOS_HAVE_OPENSSL
#define OPENSSL_SUPPRESS_DEPRECATED  // the direct calls, which load no provider and no configuration
#include <openssl/sha.h>
#endif

namespace mythos {

class Sha256 {
 public:
  using Digest = std::array<unsigned char, 32>;
#ifdef MYTHOS_HAVE_OPENSSL
  Sha256() { SHA256_Init(&context_); }
  void update(const unsigned char* data, std::size_t size) { SHA256_Update(&context_, data, size); }
  Digest digest() {
    Digest digest;
    SHA256_Final(digest.data(), &context_);
    return digest;
  }

 private:
  SHA256_CTX context_;
#else
  // `plain`: without the processor's instructions, as on those that have none.
  explicit Sha256(bool plain = false) : plain_(plain) {}
  void update(const unsigned char* data, std::size_t size);
  Digest digest();  // once, at the end

 private:
  void blocks(const unsigned char* data, std::size_t count);  // of 64 bytes
  std::array<std::uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<unsigned char, 64> rest_{};
  bool plain_;
  std::size_t held_ = 0;
  std::uint64_t total_ = 0;
#endif
};

inline std::string hex(const Sha256::Digest& digest) {
  std::string text;
  for (const unsigned char byte : digest) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}

}  // namespace mythos
