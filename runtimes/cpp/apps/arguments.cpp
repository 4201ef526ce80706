#include "arguments.hpp"

#include <CLI/CLI.hpp>
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

}  // namespace

Arguments parse_arguments(int count, const char* const* values, std::string& answer) {
  Arguments out;
  mythos::GenerateOptions& generate = out.generate;
  mythos::SamplingOptions& sampling = generate.sampling;
  mythos::ForwardOptions& forward = generate.forward;
  CLI::App app("Generate with a BUNDLE: streams text to stdout where it has a byte tokenizer, ids otherwise; all else "
               "goes to stderr.", "mythos_run");
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  app.set_help_flag("-h,--help", "Show this message and exit");
  app.set_version_flag("--version", std::string("mythos_run ") + mythos::version());
  app.add_option("BUNDLE", out.bundle, "The bundle's folder")->required();
  app.add_option("--prompt", out.prompt, "Text to go on from (bundles with a byte tokenizer)");
  app.add_option("--ids", out.ids, "Token ids to go on from, such as 1,2,3");
  const auto integer = [&](const std::string& name, auto& value, const std::string& meaning) {
    return app.add_option(name, value, meaning)->check(kDecimal);
  };
  integer("--max-new-tokens", generate.max_new_tokens, "Default: 64, or as many as the model allows");
  app.add_option("--temperature", sampling.temperature, "0: greedy")->capture_default_str();
  integer("--top-k", sampling.top_k, "0: off");
  app.add_option("--top-p", sampling.top_p, "1: off");
  app.add_option("--min-p", sampling.min_p, "0: off");
  app.add_option("--repetition-penalty", sampling.repetition_penalty, "1: off");
  integer("--seed", sampling.seed, "From 0 to 18446744073709551615")->capture_default_str();
  integer("--eos", generate.eos, "Id that ends the text; may be repeated")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)->allow_extra_args(false);
  app.add_option("--stop", out.stop, "Ids in a row that end the text, such as 4,5; may be repeated")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)->allow_extra_args(false);
  integer("--max-loops", forward.max_loops, "Default: as trained");
  app.add_option("--halt-threshold", forward.halt_threshold, "Default: as trained; inf: never");
  app.add_option("--policy", forward.policy, "Of the cache")->check(CLI::IsMember({"full", "last"}))->capture_default_str();
  app.add_option("--backend", out.load.backend)->check(CLI::IsMember({"onnxruntime", "tensorrt", "eager"}));
  integer("--threads", out.load.threads, "CPU threads, at most as many as there are")
      ->check(CLI::Range(1, std::numeric_limits<int>::max()));
  app.add_option("--verify", out.load.verify, "What of the bundle's files is checked at load")
      ->check(CLI::IsMember({"hashes", "sizes"}))->capture_default_str();
  app.add_flag("--json", out.json, "End with one line of JSON");
  try {
    app.parse(count, values);
  } catch (const CLI::CallForHelp&) {
    answer = app.help();
  } catch (const CLI::CallForVersion& version) {
    answer = std::string(version.what()) + "\n";
  } catch (const CLI::ParseError& error) {
    throw UsageError{error.what()};
  }
  return out;
}
