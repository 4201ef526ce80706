// What needs no bundle: known answers, and the rules of the parts. `ctest` runs it.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iostream>

#include "batch.hpp"
#include "cache.hpp"
#include "manifest.hpp"
#include "sampling.hpp"
#include "sha256.hpp"
#include "session.hpp"
#include "mythos_runtime.h"

namespace {

int failures = 0;

void check(bool good, const std::string& what) {
  if (good) return;
  std::cerr << "FAILED: " << what << "\n";
  ++failures;
}

void equal(const std::string& found, const std::string& expected, const std::string& what) {
  check(found == expected, what + ": found " + found + ", expected " + expected);
}

template <typename Kind>
void refuses(const std::function<void()>& work, const std::string& text) {
  try {
    work();
    check(false, "no error where one says: " + text);
  } catch (const Kind& error) {
    check(std::string(error.what()).find(text) != std::string::npos, std::string(error.what()) + "; expected " + text);
  }
}

mythos::RuntimeConfig small_config() {
  mythos::RuntimeConfig config;
  config.vocab_size = 300, config.max_seq_len = 8, config.max_loop_iters = 2, config.max_output_tokens = 4;
  config.layers = 1, config.cache_width = 2;
  return config;
}

void hashes() {
  mythos::Sha256 digest;
  digest.update(reinterpret_cast<const unsigned char*>("abc"), 3);
  equal(digest.hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "SHA-256 of abc");
}

void random_numbers() {
  check(mythos::SplitMix64(0, 0).state == 0xE220A8397B1DCDAF, "the state that sampling.py states for seed 0, row 0");
}

void greedy_takes_the_lowest_of_the_largest() {
  mythos::Sampler sampler({}, 0, 4, {});
  const float logits[] = {0, 3, 3, 1};
  check(sampler.choose(logits) == 1, "the lowest id of the largest");
  const float broken[] = {0, NAN, 1, 2};
  refuses<mythos::ResultError>([&] { sampler.choose(broken); }, "largest logit is nan");
}

void python_words() {
  equal(mythos::py_repr(1e16), "1e+16", "repr");
  equal(mythos::py_repr(0.0001), "0.0001", "repr");
  equal(mythos::py_repr(1e-5), "1e-05", "repr");
  equal(mythos::py_repr(-2.5), "-2.5", "repr");
  equal(mythos::py_repr(U"it's", true), "\"it's\"", "repr");
}

void a_cache_writes_only_what_is_valid() {
  mythos::Cache cache(2, 4, small_config(), 1);
  check(cache.nbytes() == 2 * 2 * 4 * 2 * 4, "bytes of a cache");
  refuses<mythos::CapacityError>([] { mythos::Cache(1, 9, small_config(), 1); }, "a capacity of 9 tokens exceeds the 8");
  refuses<mythos::CapacityError>([] { mythos::Cache(INT64_MAX, 8, small_config(), INT64_MAX); }, "does not give");
  refuses<mythos::RequestError>([&] { cache.truncate({1, 0}); }, "cannot be truncated to 1");
  check(cache.fork({1, 1, 0}).batch() == 3, "a fork may name a row twice");
}

void padding() {
  const mythos::Tokens left = mythos::Tokens::rows({{5, 6}, {7}}, mythos::Padding::left);
  check(left.valid == std::vector<std::uint8_t>({1, 1, 0, 1}), "padding on the left");
  check(mythos::positions_of(left, {3, 0}) == std::vector<std::int64_t>({3, 4, -1, 0}), "positions count the real tokens");
  refuses<mythos::RequestError>([] { mythos::checked(mythos::Tokens::rows({{9}}), 9); }, "ids[0, 0] is 9");
}

void bytes_as_text() {
  const auto tokenizer = mythos::make_byte_tokenizer(256);
  auto feed = tokenizer->stream();
  const auto text = [&](const std::vector<std::int64_t>& ids) {
    std::string all;
    for (const std::int64_t id : ids) all += feed(id);
    return all;
  };
  equal(text({0xC3, 0xA9, 300, 'x'}), "éx", "a character in two bytes");
  equal(text({0xE2, 'y'}), "\xEF\xBF\xBDy", "half a character");
  equal(tokenizer->decode({0xF0, 0x9F}), "\xEF\xBF\xBD", "a text that ends in half a character");
}

void times() {
  check(mythos::is_time("2026-01-01T00:00:00+00:00"), "a time");
  for (const char* bad : {"", "now", "2026-01-01", "2026-13-01T00:00:00+00:00", "2026-01-01T25:00:00+00:00",
                          "2026-01-01T00:00:00+01:00", "2026-01-01T00:00:00+00:00 "})
    check(!mythos::is_time(bad), std::string("not a time: ") + bad);
}

void no_exception_crosses_the_c_interface() {
  mythos_model* model = nullptr;
  check(mythos_load("/nowhere", nullptr, 1, &model) == 2 && !model, "a missing bundle is code 2");
  check(mythos_vocab_size(nullptr) == 0, "no model has no vocabulary");
  check(std::string(mythos_last_error()).find("/nowhere does not exist") == 0, "the text of the last error");
  check(mythos_load(nullptr, nullptr, 1, &model) == 2, "no folder is code 2");
  check(mythos_generate(nullptr, nullptr, 0, nullptr, nullptr, nullptr) == 2, "no model is code 2");
  check(mythos_forward(nullptr, nullptr, 0, nullptr, nullptr) == 2, "no model is code 2");
}

}  // namespace

int main() {
  no_exception_crosses_the_c_interface();
  hashes();
  random_numbers();
  greedy_takes_the_lowest_of_the_largest();
  python_words();
  a_cache_writes_only_what_is_valid();
  padding();
  bytes_as_text();
  times();
  std::cout << (failures ? "failed\n" : "passed\n");
  return failures != 0;
}
