#include "arguments.hpp"

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdlib>
#include <limits>

namespace {

// CLI11 takes 010 for eight and 0x10 for sixteen.
const CLI::Validator kDecimal(
    [](std::string& text) {
      const std::size_t sign = text.rfind('-', 0) == 0 || text.rfind('+', 0) == 0;
      const bool decimal = text.size() > sign && text.find_first_not_of("0123456789", sign) == text.npos;
      const bool octal = decimal && text[sign] == '0' && text.size() > sign + 1;
      return decimal && !octal ? std::string() : "'" + text + "' is not a decimal integer";
    },
    "");

// Others it could not convert, and does not say to what. Of numbers that it can read it says what range they have.
const CLI::Validator kNumber(
    [](std::string& text) {
      double value;
      return CLI::detail::lexical_cast(text, value) ? std::string() : "'" + text + "' is not a number";
    },
    "");

// Any seed is read, so that one out of range is refused in the runtime's words.
std::uint64_t seed_of(const std::string& text) {
  const std::string digits = text.substr(text[0] == '+' ? 1 : 0);
  errno = 0;
  const std::uint64_t value = std::strtoull(digits.c_str(), nullptr, 10);
  if (errno == ERANGE || (digits[0] == '-' && value))
    throw mythos::RequestError("seed should be an integer of at least 0 and at most 18446744073709551615, found " + digits);
  return value;
}

}  // namespace

Arguments parse_arguments(int count, const char* const* values, std::string& answer) {
  Arguments out;
  mythos::ForwardOptions& forward = out.generate.forward;
  CLI::App app("Generate with a BUNDLE: text on stdout where it has a tokenizer, ids otherwise; everything else on "
               "stderr.", "mythos_run");
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  const auto integer = [&](const char* name, auto& value, const char* meaning) {
    return app.add_option(name, value, meaning)->check(kDecimal);
  };
  const auto number = [&](const char* name, auto& value, const char* meaning) {
    return app.add_option(name, value, meaning)->check(kNumber);
  };
  std::string seed = "0";
  const auto repeated = [](CLI::Option* option) {
    option->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)->allow_extra_args(false);
  };
  app.add_option("BUNDLE", out.bundle, "The bundle's folder")->required();
  app.add_option("--prompt", out.prompt, "Text to go on from (bundles with a tokenizer); - reads it from stdin");
  app.add_option("--file", out.file, "A UTF-8 file with the prompt; - is stdin");
  app.add_option("--ids", out.ids, "Token ids to go on from, such as 1,2,3");
  app.add_flag("--chat", out.chat, "The prompt is a message: put it into the bundle's chat template");
  app.add_option("--system", out.system, "With --chat: a system message before it");
  integer("--max-new-tokens", out.max_new_tokens, "Default: the bundle's, or 64, as far as the model allows");
  number("--temperature", out.temperature, "0: greedy. Default: the bundle's, or 0");
  integer("--top-k", out.top_k, "0: off. Default: the bundle's, or 0");
  number("--top-p", out.top_p, "1: off. Default: the bundle's, or 1");
  number("--min-p", out.min_p, "0: off. Default: the bundle's, or 0");
  number("--repetition-penalty", out.repetition_penalty, "1: off. Default: the bundle's, or 1");
  integer("--seed", seed, "From 0 to 18446744073709551615")->capture_default_str();
  repeated(integer("--eos", out.eos, "Id that ends the text, instead of the bundle's; may be repeated"));
  app.add_flag("--ignore-eos", out.ignore_eos, "Go on after the bundle's EOS");
  repeated(app.add_option("--stop", out.stop, "Text that ends the text, and is not shown; may be repeated"));
  repeated(app.add_option("--stop-ids", out.stop_ids, "Ids in a row that end the text, such as 4,5; may be repeated"));
  integer("--max-loops", forward.max_loops, "Default: as trained");
  number("--halt-threshold", forward.halt_threshold, "Default: as trained; inf or -inf: never, or at once, as the model compares");
  app.add_option("--policy", out.generate.policy,
                 "Depths that a token did not run: run when they are needed (lazy, the default), at once (full; the same text), "
                 "or stood for by its deepest (share; approximate)")->check(CLI::IsMember({"lazy", "full", "share"}));
  number("--loops-per-token", out.generate.loops_per_token, "Budget: the mean depth of new tokens, which then halt earlier");
  number("--latency-ms", out.generate.latency_ms, "Budget: milliseconds of a new token, by what calls took lately");
  app.add_option("--speculate", out.speculate,
                 "auto, off or loops: draft tokens after so many; changes the speed, never the text")->capture_default_str();
  app.add_option("--depth-trace", out.depth_trace, "Write the depth of every new token there, as JSON");
  app.add_option("--backend", out.load.backend)->check(CLI::IsMember({"onnxruntime", "tensorrt", "eager"}));
  app.add_option("--provider", out.load.provider, "Where ONNX Runtime runs; auto: cuda where it has one. Not executed on a GPU yet")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))->capture_default_str();
  integer("--threads", out.load.threads, "CPU threads; at most the cores that there are")
      ->check(CLI::Range(1, std::numeric_limits<int>::max()));
  app.add_option("--verify", out.load.verify, "What of the bundle's files is checked at load")
      ->check(CLI::IsMember({"hashes", "sizes"}))->capture_default_str();
  app.add_option("--weights", out.load.weights,
                 "Of a bundle whose weights are in files outside of it: the file, or a folder, if they have moved");
  app.add_flag("--json", out.json, "Instead of the text: one line of JSON, with the text in it");
  app.add_flag("-v,--verbose", out.verbose, "Say more");
  app.set_version_flag("--version", std::string("mythos_run ") + mythos::version(), "Show the version and exit");
  app.set_help_flag("-h,--help", "Show this message and exit");
  try {
    app.parse(count, values);
  } catch (const CLI::CallForHelp&) {
    answer = app.help();
  } catch (const CLI::CallForVersion& version) {
    answer = std::string(version.what()) + "\n";
  } catch (const CLI::ParseError& error) {
    throw UsageError{error.what()};
  }
  out.generate.sampling.seed = seed_of(seed);
  return out;
}

std::string with_option_names(std::string text) {
  const auto in_word = [&](std::size_t at, bool dash) {
    const auto c = at < text.size() ? static_cast<unsigned char>(text[at]) : 0u;
    return c == '_' || (dash && c == '-') || std::isalnum(static_cast<int>(c)) || c >= 0x80;
  };
  for (const std::string name : {"max_new_tokens", "top_k", "top_p", "min_p", "repetition_penalty", "max_loops",
                                 "halt_threshold", "loops_per_token", "latency_ms", "depth_trace", "temperature", "seed", "eos", "stop", "policy", "speculate", "threads",
                                 "verify"}) {
    const bool simple = name.find('_') == name.npos;  // an ordinary word too: only what the text is about
    std::string option = "--" + name;
    std::replace(option.begin(), option.end(), '_', '-');
    for (std::size_t at = 0; (at = text.find(name, at)) != text.npos; ++at)
      if (simple ? at == 0 && text[name.size()] == ' ' : !(at && in_word(at - 1, true)) && !in_word(at + name.size(), false)) {
        text.replace(at, name.size(), option);
        at += option.size() - 1;
      }
  }
  return text;
}
