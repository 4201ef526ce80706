// Threads: a model for each of two, and one cache that both want. `mythos_threads BUNDLE`; `make sanitize-threads` runs it
// under the thread sanitizer.
#include <algorithm>
#include <atomic>
#include <functional>
#include <iostream>
#include <thread>

#include "mythos_engine.hpp"
#include "mythos_runtime.hpp"

namespace {

constexpr int kCalls = 30;

void at_once(const std::function<void(int)>& work) {
  std::thread other(work, 1);
  work(0);
  other.join();
}

int failed(const char* what) {
  std::cerr << "FAILED: " << what << "\n";
  return 1;
}

int run(const std::string& bundle) {
  mythos::LoadOptions options;
  options.threads = 1;  // ONNX Runtime's own threads are not what is tested, and its locks are not seen
  options.op_library = "none";
  std::vector<mythos::Model> models;
  for (int i = 0; i < 2; ++i) models.push_back(mythos::Model::load(bundle, options));
  std::vector<std::vector<std::int64_t>> tokens(2);
  at_once([&](int i) {
    mythos::GenerateOptions generate;
    generate.max_new_tokens = 4;
    tokens[static_cast<std::size_t>(i)] = models[static_cast<std::size_t>(i)].generate_all({{1, 2, 3}}, generate).tokens[0];
  });
  if (tokens[0] != tokens[1] || tokens[0].size() != 4) return failed("two models that run at once give the same tokens");

  mythos::Cache cache = models[0].new_cache(1, models[0].spec().max_seq_len);
  std::atomic<int> appended{0}, refused{0}, wrong{0};
  const int room = static_cast<int>(std::min<std::int64_t>(cache.capacity() / 2, kCalls));
  at_once([&](int) {
    for (int call = 0; call < room; ++call) try {
        models[0].forward(mythos::Tokens::rows({{1}}), {}, &cache);
        ++appended;
      } catch (const mythos::RequestError& error) {
        ++(std::string(error.what()).find("in use by another call") != std::string::npos ? refused : wrong);
      }
  });
  std::cout << appended << " calls had the cache for themselves, " << refused << " were refused\n";
  if (wrong || cache.lengths()[0] != appended || appended + refused != 2 * room)
    return failed("a cache that two threads use has the tokens of the calls that were not refused");

  std::vector<mythos::Cache> own;
  for (int i = 0; i < 2; ++i) own.push_back(models[0].new_cache(1, kCalls));
  at_once([&](int i) {  // which take turns at the model
    for (int call = 0; call < kCalls / 2; ++call) {
      models[0].forward(mythos::Tokens::rows({{1}}), {}, &own[static_cast<std::size_t>(i)]);
      own[static_cast<std::size_t>(i)] = own[static_cast<std::size_t>(i)].fork();
    }
  });
  if (own[0].lengths() != own[1].lengths() || own[0].lengths()[0] != kCalls / 2)
    return failed("two threads with caches of their own take turns at a model");

  mythos::Model one = mythos::Model::load(bundle, options);
  at_once([&](int i) {  // the first of them opens what they share
    mythos::GenerateOptions generate;
    generate.max_new_tokens = 4;
    tokens[static_cast<std::size_t>(i)] = one.generate_all({{1, 2, 3}}, generate).tokens[0];
    mythos::Engine engine = mythos::Engine::of(one);
    mythos::Request request;
    request.prompt = {1, 2, 3}, request.max_new_tokens = 4;
    const auto running = engine.submit(request);
    for (; engine.busy(); engine.tick()) engine.usage();
    if (running->tokens != tokens[static_cast<std::size_t>(i)] || !engine.counts().rows) ++wrong;
  });
  if (wrong || tokens[0] != tokens[1] || tokens[0].size() != 4)
    return failed("two threads with generations and engines of their own take turns at a model");
  return 0;
}

}  // namespace

int main(int count, char** values) {
  if (count != 2) return 2;
  try {
    return run(values[1]);
  } catch (const mythos::Error& error) {
    std::cerr << "error: " << error.what() << "\n";
    return error.exit_code();
  }
}
