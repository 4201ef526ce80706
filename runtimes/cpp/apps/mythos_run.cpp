// mythos_run: `mythos run` without Python. Same options, same texts, same exit codes, same last line.
#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <map>

#include "arguments.hpp"
#include "json_out.hpp"

namespace {

using Ids = std::vector<std::int64_t>;

// The ids in an option's text; what 64 bits do not hold is the largest, and described in `too_large`.
Ids id_list(const std::string& option, const std::string& text, std::string& too_large) {
  Ids ids;
  for (std::size_t i = 0; i <= text.size();) {
    const std::size_t end = std::min(text.find(',', i), text.size());
    std::string part = text.substr(i, end - i);
    part.erase(0, part.find_first_not_of(" \t\n\r"));
    part.erase(part.find_last_not_of(" \t\n\r") + 1);
    if (part.empty() || part.find_first_not_of("0123456789") != part.npos)
      throw mythos::RequestError(option + " " + mythos::py_repr(mythos::from_utf8(text), false) +
                                 " is not a list of ids; expected one like 1,2,3");
    errno = 0;
    const unsigned long long id = std::strtoull(part.c_str(), nullptr, 10);
    if (errno)
      too_large = "hold integers, found object";  // as numpy calls what 64 bits do not hold
    else if (id > static_cast<unsigned long long>(INT64_MAX) && too_large.empty())
      too_large = "hold ids of the vocabulary, found " + part;
    ids.push_back(static_cast<std::int64_t>(std::min(id, static_cast<unsigned long long>(INT64_MAX))));
    i = end + 1;
  }
  return ids;
}

Ids ids_of(const mythos::Model& model, const Arguments& arguments, std::string& too_large) {
  if (arguments.prompt.has_value() == arguments.ids.has_value())
    throw mythos::RequestError("give a prompt: either --prompt TEXT or --ids 1,2,3");
  if (arguments.ids) return id_list("--ids", *arguments.ids, too_large);
  const auto tokenizer = model.tokenizer();
  if (!tokenizer) throw mythos::RequestError("this bundle has no tokenizer; give --ids, or export it with --tokenizer");
  return tokenizer->encode(*arguments.prompt);
}

struct Run {
  Ids tokens, loops;
  std::vector<std::int32_t> depth;
  std::string finished;  // eos, stop or length
  double prefill_seconds = 0, decode_seconds = 0;
  double tokens_per_second() const {
    return decode_seconds > 0 ? static_cast<double>(tokens.size() - 1) / decode_seconds : 0.0;
  }
};

Run stream(mythos::Model& model, const Ids& ids, const mythos::GenerateOptions& options) {
  std::function<std::string(std::int64_t)> feed;
  if (model.tokenizer_kind() == "bytes") feed = model.tokenizer()->stream();
  Run run;
  model.generate({ids}, options, [&](const mythos::Step& step) {
    (run.tokens.empty() ? run.prefill_seconds : run.decode_seconds) += step.seconds;
    run.tokens.push_back(step.tokens[0]);
    run.depth.push_back(step.depth[0]);
    run.loops.push_back(step.loops);
    run.finished = step.finished[0];
    std::cout << (feed ? feed(step.tokens[0]) : std::to_string(step.tokens[0]) + " ") << std::flush;
    return true;
  });
  std::cout << "\n";
  return run;
}

void summary(const Run& run, const std::string& policy) {
  constexpr int kBar = 40;  // characters of the histogram's longest bar
  std::map<int, int> counts;
  double total = 0;
  for (const int depth : run.depth) {
    ++counts[depth];
    total += depth;
  }
  std::printf("%zu tokens, %.1f tokens/s after the first (%.1f ms), mean depth %.1f loops, cache policy %s\n",
              run.tokens.size(), run.tokens_per_second(), 1e3 * run.prefill_seconds,
              total / static_cast<double>(run.depth.size()), policy.c_str());
  int most = 0;
  for (const auto& [depth, count] : counts) most = std::max(most, count);
  for (int depth = counts.begin()->first; depth <= counts.rbegin()->first; ++depth) {
    const int count = counts.count(depth) ? counts[depth] : 0;
    std::string bar;
    for (int i = static_cast<int>(std::nearbyint(double{kBar} * count / most)); i > 0; --i) bar += "█";
    std::printf("  %3d loops %5d %s\n", depth, count, bar.c_str());
  }
}

int run(const Arguments& arguments) {
  mythos::Model model = mythos::Model::load(arguments.bundle, arguments.load);
  std::string too_large, ignored;  // a stop that is no id of this model never comes
  const Ids ids = ids_of(model, arguments, too_large);
  mythos::GenerateOptions options = arguments.generate;
  for (const std::string& text : arguments.stop) options.stop.push_back(id_list("--stop-ids", text, ignored));
  if (!too_large.empty()) throw mythos::RequestError("ids[0] should " + too_large);
  if (!arguments.wrong_seed.empty())
    throw mythos::RequestError("seed should be an integer of at least 0 and at most 18446744073709551615, found " +
                               arguments.wrong_seed);
  const Run done = stream(model, ids, options);
  const std::string& policy = options.forward.policy;
  std::cout.flush();
  summary(done, policy);
  if (arguments.json)
    std::printf("{\"tokens\": %s, \"depth\": %s, \"loops\": %s, \"tokens_per_second\": %s, \"prefill_seconds\": %s, "
                "\"policy\": \"%s\", \"finished\": \"%s\"}\n",
                mythos::json_list(done.tokens).c_str(), mythos::json_list(done.depth).c_str(),
                mythos::json_list(done.loops).c_str(), mythos::py_repr(done.tokens_per_second()).c_str(),
                mythos::py_repr(done.prefill_seconds).c_str(), policy.c_str(), done.finished.c_str());
  return 0;
}

}  // namespace

int main(int count, char** values) {
  try {
    const Arguments arguments = parse_arguments(count, values);
    if (arguments.help) {
      std::cout << kHelp;
      return 0;
    }
    return run(arguments);
  } catch (const UsageError& error) {
    std::cerr << "Usage: mythos_run [OPTIONS] BUNDLE\nTry 'mythos_run --help' for help.\n\nError: " << error.text << "\n";
    return 2;
  } catch (const mythos::Error& error) {
    std::cerr << "error: " << error.what() << "\n";
    return error.exit_code();
  } catch (const std::exception& error) {  // such as no memory
    std::cerr << "error: " << error.what() << "\n";
    return 3;
  }
}
