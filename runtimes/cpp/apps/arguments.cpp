#include "arguments.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <map>
#include <vector>

#include "json.hpp"

const char* const kHelp =
    R"(Usage: mythos_run [OPTIONS] BUNDLE

  Generate with a BUNDLE: streams text where it has a tokenizer, ids otherwise.

Options:
  --prompt TEXT                   Text to go on from (bundles with a byte tokenizer).
  --ids TEXT                      Token ids to go on from, such as 1,2,3.
  --max-new-tokens INTEGER        [default: 64]
  --temperature FLOAT             0: greedy.  [default: 0.0]
  --top-k INTEGER                 0: off.
  --top-p FLOAT                   1: off.
  --min-p FLOAT                   0: off.
  --repetition-penalty FLOAT      1: off.
  --seed INTEGER                  [default: 0]
  --eos INTEGER                   Id that ends the text.
  --stop-ids TEXT                 Ids in a row that end the text, such as 4,5;
                                  may be repeated.
  --max-loops INTEGER             Default: as trained.
  --halt-threshold FLOAT          Default: as trained.
  --policy [full|last]            [default: full]
  --backend [onnxruntime|tensorrt|eager]
  --threads INTEGER RANGE         CPU threads.  [x>=1]
  --json                          End with one line of JSON.
  -h, --help                      Show this message and exit.
)";

namespace {

using Choices = std::vector<std::string>;

[[noreturn]] void invalid(const std::string& option, const std::string& text) {
  throw UsageError{"Invalid value for '" + option + "': " + text};
}

std::string quoted(const std::string& text) { return mythos::py_repr(mythos::from_utf8(text), false); }

std::string trimmed(const std::string& text) {
  const auto first = text.find_first_not_of(" \t\n\r"), last = text.find_last_not_of(" \t\n\r");
  return first == text.npos ? "" : text.substr(first, last - first + 1);
}

bool is_integer(const std::string& text) {
  const std::size_t sign = !text.empty() && (text[0] == '-' || text[0] == '+');
  return text.size() > sign && text.find_first_not_of("0123456789", sign) == text.npos;
}

std::int64_t to_integer(const std::string& option, const std::string& value) {
  const std::string text = trimmed(value);
  if (!is_integer(text)) invalid(option, quoted(value) + " is not a valid integer.");
  return std::strtoll(text.c_str(), nullptr, 10);  // far too large becomes the largest, which is refused later
}

double to_float(const std::string& option, const std::string& value) {
  const std::string text = trimmed(value);
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  const bool odd = text.find_first_of("xXpP(") != text.npos;  // C's hexadecimal floats are not Python's
  if (text.empty() || *end || odd) invalid(option, quoted(value) + " is not a valid float.");
  return number;
}

std::string to_choice(const std::string& option, const std::string& value, const Choices& choices) {
  std::string all;
  for (const std::string& choice : choices) {
    if (choice == value) return value;
    all += (all.empty() ? "'" : ", '") + choice + "'";
  }
  invalid(option, quoted(value) + " is not one of " + all + ".");
}

}  // namespace

Arguments parse_arguments(int count, char** values) {
  Arguments out;
  out.generate.max_new_tokens = 64;
  mythos::SamplingOptions& sampling = out.generate.sampling;
  using Set = std::function<void(const std::string&, const std::string&)>;
  const std::map<std::string, Set> options{
      {"--prompt", [&](auto&, auto& v) { out.prompt = v; }},
      {"--ids", [&](auto&, auto& v) { out.ids = v; }},
      {"--max-new-tokens", [&](auto& o, auto& v) { out.generate.max_new_tokens = to_integer(o, v); }},
      {"--temperature", [&](auto& o, auto& v) { sampling.temperature = to_float(o, v); }},
      {"--top-k", [&](auto& o, auto& v) { sampling.top_k = to_integer(o, v); }},
      {"--top-p", [&](auto& o, auto& v) { sampling.top_p = to_float(o, v); }},
      {"--min-p", [&](auto& o, auto& v) { sampling.min_p = to_float(o, v); }},
      {"--repetition-penalty", [&](auto& o, auto& v) { sampling.repetition_penalty = to_float(o, v); }},
      {"--seed", [&](auto& o, auto& v) {
         to_integer(o, v);
         const std::string text = trimmed(v);
         errno = 0;
         sampling.seed = std::strtoull(text.c_str(), nullptr, 10);
         out.wrong_seed = errno || (text[0] == '-' && sampling.seed) ? text : "";
       }},
      {"--eos", [&](auto& o, auto& v) { out.generate.eos = {to_integer(o, v)}; }},
      {"--stop-ids", [&](auto&, auto& v) { out.stop.push_back(v); }},
      {"--max-loops", [&](auto& o, auto& v) { out.generate.forward.max_loops = to_integer(o, v); }},
      {"--halt-threshold", [&](auto& o, auto& v) { out.generate.forward.halt_threshold = to_float(o, v); }},
      {"--policy", [&](auto& o, auto& v) { out.generate.forward.policy = to_choice(o, v, {"full", "last"}); }},
      {"--backend", [&](auto& o, auto& v) { out.load.backend = to_choice(o, v, {"onnxruntime", "tensorrt", "eager"}); }},
      {"--threads", [&](auto& o, auto& v) {
         const std::int64_t threads = to_integer(o, v);
         if (threads < 1) invalid(o, std::to_string(threads) + " is not in the range x>=1.");
         out.load.threads = static_cast<int>(std::min<std::int64_t>(threads, 1 << 20));
       }},
  };
  bool have_bundle = false, only_arguments = false;
  for (int i = 1; i < count; ++i) {
    std::string name = values[i];
    if (name == "--" && !only_arguments) {
      only_arguments = true;
      continue;
    }
    if (only_arguments || name.empty() || name[0] != '-' || name == "-") {
      if (have_bundle) throw UsageError{"Got unexpected extra argument (" + name + ")"};
      out.bundle = name;
      have_bundle = true;
      continue;
    }
    if (name == "-h" || name == "--help") {
      out.help = true;
      return out;
    }
    if (name == "--json") {
      out.json = true;
      continue;
    }
    const std::size_t equals = name.find('=');
    const std::string given = name;
    name = name.substr(0, equals);
    const auto option = options.find(name);
    if (option == options.end()) throw UsageError{"No such option: " + name};
    if (equals != given.npos)
      option->second(name, given.substr(equals + 1));
    else if (i + 1 < count)
      option->second(name, values[++i]);
    else
      throw UsageError{"Option '" + name + "' requires an argument."};
  }
  if (!have_bundle) throw UsageError{"Missing argument 'BUNDLE'."};
  return out;
}
