// What needs no bundle: known answers, and the rules of the parts. `ctest` runs it.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>

#include "batch.hpp"
#include "cache.hpp"
#include "check.hpp"
#include "guards.hpp"
#include "manifest.hpp"
#include "noise.hpp"
#include "sampling.hpp"
#include "sha256.hpp"
#include "session.hpp"
#include "spec.hpp"
#include "text.hpp"
#include "mythos_engine.h"
#include "mythos_runtime.h"

namespace {

void same(const std::string& found, const std::string& expected, const std::string& what) {
  check(found == expected, what + ": found " + found + ", expected " + expected);
}

// A model with one layer around the loop and `per_loop` of them inside.
std::shared_ptr<const mythos::LoopSpec> small_spec(std::int64_t per_loop) {
  mythos::LoopSpec spec;
  spec.vocab_size = 300, spec.max_seq_len = 8, spec.trained_loops = 2, spec.max_output_tokens = 4;
  spec.caches = {{"layers", 1, false, 2, "float32", 0}, {"loop", per_loop, true, 2, "float16", 0}};
  spec.graphs["model"] = mythos::model_ports(spec.vocab_size, spec.caches, spec.exit, nullptr);
  return std::make_shared<const mythos::LoopSpec>(spec);
}

void hashes() {
  mythos::Sha256 digest;
  digest.update(reinterpret_cast<const unsigned char*>("abc"), 3);
  same(mythos::hex(digest.digest()), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "SHA-256 of abc");
  mythos::Sha256 long_digest;
  const std::string text(1000, 'a');
  for (int i = 0; i < 1000; ++i) long_digest.update(reinterpret_cast<const unsigned char*>(text.data()), text.size());
  same(mythos::hex(long_digest.digest()), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
        "SHA-256 of a million a");
#ifndef MYTHOS_HAVE_OPENSSL
  mythos::Sha256 fast, plain(true);  // pieces of every length up to three blocks
  for (std::size_t size = 0; size < 192; ++size) {
    const std::string piece = text.substr(0, size) + std::string(1, static_cast<char>(size));
    for (mythos::Sha256* each : {&fast, &plain}) each->update(reinterpret_cast<const unsigned char*>(piece.data()), piece.size());
  }
  same(mythos::hex(fast.digest()), mythos::hex(plain.digest()), "SHA-256 with instructions and without");
#endif
}

void random_numbers() {
  check(mythos::SplitMix64(0, 0).state == 0xE220A8397B1DCDAF, "the state that sampling.py states for seed 0, row 0");
}

void a_drawn_state() {
  check(mythos::philox({0, 0, 0, 0}, 0) == mythos::Words({0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8}),
        "Philox's known answer for zeros");
  check(mythos::philox({~0u, ~0u, ~0u, ~0u}, ~std::uint64_t{0}) ==
            mythos::Words({0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD}), "and for ones");
  check(std::abs(mythos::normal_quantile(0.999) - 3.090232306167813) < 1e-14, "a quantile in the tail");
  check(std::abs(mythos::normal_quantile(0.3) + 0.5244005127080407) < 1e-14, "a quantile in the middle");
  const mythos::StateTensor tensor{"h", "float32", {{0, "B"}, {0, "T"}, {6, ""}}, "noise", 0.5, 3.0};
  const auto drawn = mythos::initial_state(tensor, {-1, std::int64_t{1} << 40}, 7);
  check(std::count(drawn.begin(), drawn.begin() + 6, 0.0f) == 6, "padding draws nothing");
  const float known[] = {-0.817246199f, 0.35707894f, -0.298814774f, 0.160617843f, 0.198937505f, -0.31714502f};
  check(std::equal(drawn.begin() + 6, drawn.end(), known), "what noise.py draws for seed 7, position 2^40");
}

void greedy_takes_the_lowest_of_the_largest() {
  mythos::Sampler sampler({}, 0, 4, {});
  const float logits[] = {0, 3, 3, 1};
  check(sampler.choose(logits) == 1, "the lowest id of the largest");
  const float broken[] = {0, NAN, 1, 2};
  refuses<mythos::ResultError>([&] { sampler.choose(broken); }, "largest logit is nan");
  constexpr std::size_t kMany = 37;  // lanes of 16, and some behind them
  mythos::Sampler many({}, 0, kMany, {});
  for (std::size_t at = 0; at < kMany; ++at) {
    std::vector<float> scores(kMany, -3);
    scores[at] = -1, scores[kMany - 1] = -1;
    check(many.choose(scores.data()) == static_cast<std::int64_t>(at), "the lowest id wherever it stands");
    scores[at] = std::nanf("");
    refuses<mythos::ResultError>([&] { many.choose(scores.data()); }, "largest logit is nan");
  }
}

void python_words() {
  same(mythos::py_repr(1e16), "1e+16", "repr");
  same(mythos::py_repr(0.0001), "0.0001", "repr");
  same(mythos::py_repr(1e-5), "1e-05", "repr");
  same(mythos::py_repr(-2.5), "-2.5", "repr");
  same(mythos::py_repr("\xC3\xA9\n\xFF"), "'\xC3\xA9\\n\\ufffd'", "repr");
  same(mythos::py_repr("it's", true), "\"it's\"", "repr");
}

void a_cache_writes_only_what_is_valid() {
  const auto spec = small_spec(3);
  mythos::Cache cache(2, 4, spec, 2);
  check(cache.nbytes() == 2 * 4 * 2 * (1 * 4 + 3 * 2 * 2), "bytes of a cache");
  refuses<mythos::CapacityError>([&] { mythos::Cache(1, 9, spec, 1); }, "a capacity of 9 tokens exceeds the 8");
  refuses<mythos::CapacityError>([&] { mythos::Cache(INT64_MAX, 8, spec, INT64_MAX); }, "does not give");
  refuses<mythos::RequestError>([&] { cache.truncate({1, 0}); }, "cannot be truncated to 1");
  check(cache.fork({1, 1, 0}).batch() == 3, "a fork may name a row twice");

  mythos::Cache::Buffers buffers;
  buffers.spec = spec, buffers.batch = 2, buffers.capacity = 3, buffers.lengths = {0, 1};
  std::vector<char> memory(2 * 2 * 3, '.'), entries{'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'};  // 2 lines, 2 rows, 2 tokens
  buffers.past.resize(1);
  buffers.past[0].memory.reset(static_cast<char*>(std::malloc(memory.size())));
  std::copy(memory.begin(), memory.end(), buffers.past[0].memory.get());
  buffers.past[0].lines = 2, buffers.past[0].entry = 1;
  buffers.append({entries.data()}, mythos::Tokens::rows({{1, 1}, {1}}, mythos::Padding::left));
  same({buffers.past[0].memory.get(), memory.size()}, "ab..d.ef..h.", "lines after a chunk with padding on the left");
  check(buffers.lengths == std::vector<std::int64_t>({2, 2}), "lengths count the real tokens");
  refuses<mythos::CapacityError>([&] { buffers.check_room({1, 2}); }, "row 1 of the cache holds 2 tokens");
}

void what_no_call_passes_over() {
  mythos::Cache::Buffers buffers;
  {
    const mythos::Using first(&buffers);
    refuses<mythos::RequestError>([&] { mythos::Using second(&buffers); }, "in use by another call: a cache is for one thread");
  }
  mythos::Using again(&buffers), none(nullptr), no_other(nullptr);
  const mythos::Tokens tokens = mythos::Tokens::rows({{1, 2}, {3}});
  float logits[] = {0, 1, 2, 3, 4, 5, NAN, NAN};  // of the padding nothing is asked
  mythos::check_numbers(logits, tokens, 2, "zeros");
  logits[5] = NAN;
  refuses<mythos::ResultError>([&] { mythos::check_numbers(logits, tokens, 2, "zeros"); },
                               "the engine's logits hold NaN at row 1, token 0: its results are broken (zeros)");
}

void ports_in_words() {
  const auto spec = small_spec(24);
  const mythos::Port& past = spec->ports().of("past", "loop");
  same(past.words(), "past_loop float16 [N, 24, B, P, 2]", "a port with several slots per loop");
  check(mythos::shape_of(past, {{"N", 3}, {"B", 2}, {"P", 5}}) == std::vector<std::int64_t>({3, 24, 2, 5, 2}), "its shape");
  const mythos::Port& fresh = spec->ports().of("new", "loop");
  const std::vector<mythos::Tensor> wrong{{"new_loop", "float16", {2, 24, 2, 1, 2}, nullptr, nullptr}};
  refuses<mythos::ResultError>([&] { mythos::check_outputs({fresh}, wrong, {{"B", 2}, {"T", 1}, {"N", 3}}); },
                               "has shape [2, 24, 2, 1, 2], expected new_loop float16 [N, 24, B, T, 2] with {'B': 2, "
                               "'T': 1, 'N': 3}");
}

// A cache of one model for another: the ports do not say which lines are rounded, or in which parts.
void caches_of_another_model() {
  mythos::LoopSpec plain = *small_spec(2);
  plain.caches[1].dtype = "float32";
  plain.graphs["model"] = mythos::model_ports(plain.vocab_size, plain.caches, plain.exit, nullptr);
  mythos::LoopSpec rounded = plain, apart = plain;
  for (auto& group : rounded.caches) group.rounded = {2};
  for (auto& group : apart.caches) group.rounded = {1, 1};
  check(rounded.ports().inputs == plain.ports().inputs, "rounded lines have the ports of others");
  for (const auto* one : {&plain, &rounded, &apart})
    for (const auto* other : {&plain, &rounded, &apart})
      check(mythos::LoopSpec(*one).fits(*other) == (one == other), "a cache fits those of the same lines");
}

void padding() {
  const mythos::Tokens left = mythos::Tokens::rows({{5, 6}, {7}}, mythos::Padding::left);
  check(left.valid == std::vector<std::uint8_t>({1, 1, 0, 1}), "padding on the left");
  check(mythos::positions_of(left, {3, 0}) == std::vector<std::int64_t>({3, 4, -1, 0}), "positions count the real tokens");
  refuses<mythos::RequestError>([] { mythos::checked(mythos::Tokens::rows({{9}}), 9); }, "ids[0, 0] is 9");
}

// As tests/mythos_runtime/test_knobs.py has it.
void a_call_runs_with_a_finite_threshold() {
  constexpr float most = std::numeric_limits<float>::max();
  mythos::LoopSpec spec = *small_spec(2);
  const auto runs_with = [&](std::optional<double> asked) { return mythos::threshold_of(asked, spec, NAN); };
  check(std::isnan(runs_with({})), "a model without one");
  refuses<mythos::RequestError>([&] { runs_with(0.5); }, "has no halt_threshold");
  spec.exit.knobs = {{"halt_threshold", 0.99, {}, {}, "a sum"}};
  check(runs_with({}) == 0.99f && runs_with(0.1) == 0.1f, "as trained, and as asked");
  check(runs_with(INFINITY) == most && runs_with(-INFINITY) == -most, "an infinite one is the largest");
  refuses<mythos::RequestError>([&] { runs_with(NAN); }, "halt_threshold should be a finite number, found nan");
  refuses<mythos::RequestError>([&] { runs_with(-1e39); }, "halt_threshold should be a float32 from -inf to inf, found -1e+39");
  spec.exit.knobs = {{"halt_threshold", 1e300, 0.0, {}, "a sum"}};
  check(runs_with({}) == most, "as trained, too");
  refuses<mythos::RequestError>([&] { runs_with(-INFINITY); }, "halt_threshold should be a float32 from 0.0 to inf, found -inf");
}

void bytes_as_text() {
  const auto tokenizer = mythos::make_byte_tokenizer(256);
  const auto stream = tokenizer->stream();
  const auto text = [&](const std::vector<std::int64_t>& ids) {
    std::string all;
    for (const std::int64_t id : ids) all += stream->feed(id);
    return all;
  };
  same(text({0xC3, 0xA9, 300, 'x'}), "éx", "a character in two bytes");
  same(text({0xE2, 'y'}), "\xEF\xBF\xBDy", "half a character");
  same(text({'z', 0xF0, 0x9F}), "z", "a text that ends in half a character");
  same(stream->finish(), "\xEF\xBF\xBD", "its end");
  same(stream->finish(), "", "the end of nothing");
  same(tokenizer->decode({0xF0, 0x9F}), "\xEF\xBF\xBD", "the same at once");
  check(tokenizer->encode("é") == std::vector<std::int64_t>({0xC3, 0xA9}), "the bytes of a text");
  for (const char* bad : {"\xFF", "\xC3", "\xC0\x80", "\xE0\x80\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80", "a\xC3z"})
    refuses<mythos::RequestError>([&] { tokenizer->encode(bad); }, "the prompt is not UTF-8: byte 0x");
}

void times() {
  check(mythos::is_time("2026-01-01T00:00:00+00:00"), "a time");
  for (const char* bad : {"", "now", "2026-01-01", "2026-13-01T00:00:00+00:00", "2026-01-01T25:00:00+00:00",
                          "2026-01-01T00:00:00+01:00", "2026-01-01T00:00:00+00:00 "})
    check(!mythos::is_time(bad), std::string("not a time: ") + bad);
}

void no_exception_crosses_the_c_interface() {
  mythos_model* model = nullptr;
  mythos_cache* cache = nullptr;
  check(mythos_load("/nowhere", nullptr, 1, MYTHOS_VERIFY_HASHES, &model) == 2 && !model, "a missing bundle is code 2");
  check(mythos_vocab_size(nullptr) == 0, "no model has no vocabulary");
  check(std::string(mythos_last_error()).find("/nowhere does not exist") == 0, "the text of the last error");
  check(mythos_load(nullptr, nullptr, 1, 0, &model) == 2, "no folder is code 2");
  check(mythos_load("/nowhere", nullptr, 1, 7, &model) == 2, "no such verification is code 2");
  check(mythos_encode(nullptr, nullptr, 0, nullptr, 0, nullptr) == 2, "no model is code 2");
  check(mythos_generate(nullptr, nullptr, nullptr, 0, nullptr, nullptr, nullptr) == 2, "no model is code 2");
  check(mythos_forward(nullptr, nullptr, nullptr, 0, 0, nullptr, nullptr, nullptr, nullptr, nullptr) == 2, "nor here");
  check(mythos_cache_new(nullptr, 1, 1, 1, nullptr, &cache) == 2 && !cache, "no model has no cache");
  check(mythos_cache_fork(nullptr, nullptr, 0, &cache) == 2 && mythos_cache_truncate(nullptr, nullptr) == 2, "nor has it");
  std::size_t bytes = 0;
  check(mythos_cache_bytes(nullptr, &bytes) == 2 && mythos_cache_read(nullptr, 0, 0, nullptr, 0, &bytes) == 2 &&
            mythos_cache_write(nullptr, 0, 0, nullptr, 0, nullptr, 0) == 2, "nor lines");
  mythos_cache_free(nullptr);
  mythos_free(nullptr);
  same(mythos_version(), mythos::version(), "the version");
  same(mythos_last_error_kind(), "RequestError", "what the last error was");
  check(mythos_load("/nowhere", nullptr, 1, 0, &model) == 2, "a missing bundle");
  same(mythos_last_error_kind(), "BundleError", "what a missing bundle is");
  same(std::string(mythos_description(nullptr)) + mythos_operators(nullptr), "", "no model is nothing");
}

void nor_that_of_the_engine() {
  mythos_engine* engine = nullptr;
  check(mythos_engine_open("/nowhere", nullptr, nullptr, &engine) == 2 && !engine, "a missing bundle is code 2");
  mythos_engine_options options = mythos_default_engine_options();
  check(options.max_loops == -1 && options.max_lag == 64 && std::isnan(options.patience), "the defaults of an engine");
  check(mythos_engine_open(nullptr, nullptr, &options, &engine) == 2 && mythos_engine_of(nullptr, &options, &engine) == 2,
        "no bundle, no model");
  const mythos_request request = mythos_default_request();
  std::uint64_t number = 0;
  check(request.max_new_tokens == 1 && request.top_p == 1 && std::isnan(request.latency_ms), "the defaults of a request");
  check(mythos_engine_submit(engine, &request, &number) == 2 && mythos_engine_cancel(engine, 0) == 2, "no engine");
  mythos_tick* tick = nullptr;
  mythos_usage usage;
  std::int64_t pages = 0;
  check(mythos_engine_tick(engine, &tick) == 2 && !tick && !mythos_engine_busy(engine), "nothing happens");
  check(mythos_engine_usage(engine, &usage) == 2 && mythos_engine_pages_running(engine, &pages) == 2, "nothing is held");
  mythos_tick_free(nullptr);
  mythos_engine_free(nullptr);
}

}  // namespace

int main() {
  no_exception_crosses_the_c_interface();
  nor_that_of_the_engine();
  hashes();
  random_numbers();
  a_drawn_state();
  greedy_takes_the_lowest_of_the_largest();
  python_words();
  a_cache_writes_only_what_is_valid();
  what_no_call_passes_over();
  ports_in_words();
  caches_of_another_model();
  padding();
  a_call_runs_with_a_finite_threshold();
  bytes_as_text();
  times();
  return told();
}
