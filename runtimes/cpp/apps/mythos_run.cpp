// mythos_run: `mythos run` without Python. Same options, same texts, same exit codes, same last line.
#include <algorithm>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "arguments.hpp"
#include "text.hpp"

namespace {

constexpr int kClosedPipe = 141;  // 128 + SIGPIPE, as a shell shows it
constexpr std::int64_t kNewTokens = 64;

using Ids = std::vector<std::int64_t>;

// Every write is checked: output that is lost must not look like success.
void put(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0) return;
  if (errno == EPIPE) std::_Exit(kClosedPipe);  // nobody reads on, so there is nobody to tell
  throw mythos::Error("the output cannot be written: " + std::string(std::strerror(errno)), 3);
}

// The ids in an option's text. One that 64 bits do not hold is the largest, which no model has.
Ids id_list(const std::string& option, const std::string& text) {
  Ids ids;
  for (std::size_t i = 0; i <= text.size();) {
    const std::size_t end = std::min(text.find(',', i), text.size());
    std::string part = text.substr(i, end - i);
    part.erase(0, part.find_first_not_of(" \t\n\r"));
    part.erase(part.find_last_not_of(" \t\n\r") + 1);
    if (part.empty() || part.find_first_not_of("0123456789") != part.npos)
      throw mythos::RequestError(option + " " + mythos::py_repr(text) + " is not a list of ids; expected one like 1,2,3");
    ids.push_back(std::strtoll(part.c_str(), nullptr, 10));
    i = end + 1;
  }
  return ids;
}

Ids ids_of(const mythos::Model& model, const Arguments& arguments) {
  if (arguments.prompt.has_value() == arguments.ids.has_value())
    throw mythos::RequestError("give a prompt: either --prompt TEXT or --ids 1,2,3");
  if (arguments.ids) return id_list("--ids", *arguments.ids);
  const auto tokenizer = model.tokenizer();
  if (!tokenizer) throw mythos::RequestError("this bundle has no tokenizer; give --ids, or export it with --tokenizer");
  return tokenizer->encode(*arguments.prompt);
}

struct Run {
  Ids tokens, loops;
  std::vector<std::int32_t> depth;
  std::string text;
  std::string finished;  // eos, stop or length
  double prefill_seconds = 0, decode_seconds = 0;
  double tokens_per_second() const {
    return decode_seconds > 0 ? static_cast<double>(tokens.size() - 1) / decode_seconds : 0.0;
  }
};

Run stream(mythos::Model& model, const Ids& ids, const mythos::GenerateOptions& options) {
  std::unique_ptr<mythos::Tokenizer::Stream> text;
  if (model.tokenizer_kind() == "bytes") text = model.tokenizer()->stream();
  Run run;
  const auto show = [&](const std::string& piece) {
    if (text) run.text += piece;
    put(piece);
  };
  model.generate({ids}, options, [&](const mythos::Step& step) {
    (run.tokens.empty() ? run.prefill_seconds : run.decode_seconds) += step.seconds;
    run.tokens.push_back(step.tokens[0]);
    run.depth.push_back(step.depth[0]);
    run.loops.push_back(step.loops);
    run.finished = step.finished[0];
    show(text ? text->feed(step.tokens[0]) : std::to_string(step.tokens[0]) + " ");
    return true;
  });
  if (text) show(text->finish());
  put("\n");
  return run;
}

// To stderr: stdout is for the text.
void summary(const Run& run, const std::string& policy) {
  constexpr int kBar = 40;  // characters of the histogram's longest bar
  std::map<int, int> counts;
  double total = 0;
  for (const int depth : run.depth) {
    ++counts[depth];
    total += depth;
  }
  std::fprintf(stderr, "%zu tokens, %.1f tokens/s after the first (%.1f ms), mean depth %.1f loops, cache policy %s\n",
               run.tokens.size(), run.tokens_per_second(), 1e3 * run.prefill_seconds,
               total / static_cast<double>(run.depth.size()), policy.c_str());
  int most = 0;
  for (const auto& [depth, count] : counts) most = std::max(most, count);
  for (int depth = counts.begin()->first; depth <= counts.rbegin()->first; ++depth) {
    const int count = counts.count(depth) ? counts[depth] : 0;
    std::string bar;
    for (int i = static_cast<int>(std::nearbyint(double{kBar} * count / most)); i > 0; --i) bar += "█";
    std::fprintf(stderr, "  %3d loops %5d %s\n", depth, count, bar.c_str());
  }
}

mythos::LoadOptions within_this_machine(mythos::LoadOptions load) {
  const int have = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  if (load.threads && *load.threads > have) {
    std::fprintf(stderr, "--threads %d is more than this machine has: %d run\n", *load.threads, have);
    load.threads = have;
  }
  return load;
}

void run(const Arguments& arguments) {
  mythos::Model model = mythos::Model::load(arguments.bundle, within_this_machine(arguments.load));
  if (model.operators() == "portable")
    std::fprintf(stderr, "no library of native operators is here: the portable ones serve, which are slower\n");
  const Ids ids = ids_of(model, arguments);
  mythos::GenerateOptions options = arguments.generate;
  for (const std::string& text : arguments.stop) options.stop.push_back(id_list("--stop", text));
  if (!options.max_new_tokens && !ids.empty())
    options.max_new_tokens = std::min(kNewTokens, model.most_new_tokens(static_cast<std::int64_t>(ids.size())));
  const Run done = stream(model, ids, options);
  summary(done, options.forward.policy);
  if (!arguments.json) return;
  nlohmann::ordered_json line{{"tokens", done.tokens},
                              {"depth", done.depth},
                              {"loops", done.loops},
                              {"tokens_per_second", done.tokens_per_second()},
                              {"prefill_seconds", done.prefill_seconds},
                              {"policy", options.forward.policy},
                              {"finished", done.finished},
                              {"operators", model.operators()}};
  if (model.tokenizer_kind() == "bytes") line["text"] = done.text;
  put(line.dump() + "\n");
}

}  // namespace

int main(int count, char** values) {
  std::signal(SIGPIPE, SIG_IGN);
  try {
    std::string answer;
    const Arguments arguments = parse_arguments(count, values, answer);
    if (answer.empty())
      run(arguments);
    else
      put(answer);
    return 0;
  } catch (const UsageError& error) {
    std::fprintf(stderr, "error: %s; see mythos_run --help\n", error.text.c_str());
    return 2;
  } catch (const mythos::Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return error.exit_code();
  } catch (const std::exception& error) {  // such as no memory
    std::fprintf(stderr, "error: %s\n", error.what());
    return 3;
  }
}
