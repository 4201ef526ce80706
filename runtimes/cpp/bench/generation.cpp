// The engine's pace, for `mythos bench --generation`: `mythos_generation_bench BUNDLE THREADS`.
//
// Every line of stdin is a run: {"prompts": [[id, ...], ...], "tokens": of each on average, "most": of each,
// "depths": [[loops, ...], ...] (may be empty), "policy": "lazy", "max_lag": 64 or null}. Every line of stdout is what it
// took, behind the first token of each: {"tokens": ..., "seconds": ..., "depth": mean loops}. As in Python
// (mythos_export/bench/generation/schedules.py), who is ahead goes on, so that every call is full until the end.
#include <algorithm>
#include <chrono>
#include <iostream>
#include <map>
#include <numeric>

#include <nlohmann/json.hpp>

#include "mythos_engine.hpp"

namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

std::size_t generated(const std::vector<std::shared_ptr<const mythos::Running>>& all) {
  return std::accumulate(all.begin(), all.end(), std::size_t{0},
                         [](std::size_t sum, const auto& each) { return sum + each->tokens.size(); });
}

// Engines over a bundle, opened when first asked for.
class Engines {
 public:
  Engines(std::string bundle, int threads) : bundle_(std::move(bundle)) {
    load_.threads = threads, load_.verify = "sizes";
  }
  mythos::Engine& of(std::size_t sequences, const json& max_lag) {
    mythos::EngineOptions options;
    options.most_running = static_cast<std::int64_t>(sequences);
    options.max_lag.reset();
    if (!max_lag.is_null()) options.max_lag = max_lag.get<std::int64_t>();
    const auto key = std::pair{options.most_running, options.max_lag};
    const auto found = engines_.find(key);
    return found != engines_.end() ? found->second
                                   : engines_.emplace(key, mythos::Engine::open(bundle_, load_, options)).first->second;
  }

 private:
  std::string bundle_;
  mythos::LoadOptions load_;
  std::map<std::pair<std::int64_t, std::optional<std::int64_t>>, mythos::Engine> engines_;
};

json run(Engines& engines, const json& given) {
  const json& prompts = given.at("prompts");
  mythos::Engine& engine = engines.of(prompts.size(), given.at("max_lag"));
  std::vector<std::shared_ptr<const mythos::Running>> running;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    mythos::Request request;
    request.prompt = prompts[i].get<std::vector<std::int64_t>>();
    request.max_new_tokens = given.at("most");
    request.policy = given.at("policy");
    if (!given.at("depths").empty()) request.depths = given.at("depths")[i].get<std::vector<std::int64_t>>();
    running.push_back(engine.submit(std::move(request)));
  }
  while (std::any_of(running.begin(), running.end(), [](const auto& each) { return each->tokens.empty(); })) engine.tick();
  std::vector<std::size_t> before;
  for (const auto& each : running) before.push_back(each->depth.size());
  const std::size_t first = generated(running), wanted = given.at("tokens").get<std::size_t>() * prompts.size();
  const auto started = Clock::now();
  std::size_t done = 0;
  while (done < wanted && engine.busy()) done += engine.tick().size();
  const double seconds = std::chrono::duration<double>(Clock::now() - started).count();
  for (const auto& each : running)
    if (each->finished.empty()) engine.cancel(each);
  double loops = 0;
  for (std::size_t i = 0; i < running.size(); ++i)
    loops += std::accumulate(running[i]->depth.begin() + static_cast<std::ptrdiff_t>(before[i]), running[i]->depth.end(), 0.0);
  return {{"tokens", done}, {"seconds", seconds}, {"depth", loops / static_cast<double>(generated(running) - first)}};
}

}  // namespace

int main(int count, char** values) try {
  if (count != 3) {
    std::cerr << "mythos_generation_bench BUNDLE THREADS\n";
    return 2;
  }
  Engines engines(values[1], std::stoi(values[2]));
  for (std::string line; std::getline(std::cin, line);) std::cout << run(engines, json::parse(line)) << std::endl;
} catch (const std::exception& error) {
  std::cerr << error.what() << '\n';
  return 2;
}
