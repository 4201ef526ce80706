#include "generation.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <utility>

#include "output.hpp"
#include "text.hpp"

namespace {

constexpr std::int64_t kNewTokens = 64;  // where neither the command nor the bundle says how many

void check_known(const Ids& ids, const std::string& option, const mythos::LoopSpec& spec) {
  for (const std::int64_t id : ids)
    if (id >= spec.vocab_size)
      throw mythos::RequestError(option + " " + std::to_string(id) + " never comes: this model's vocabulary has the ids 0 to " +
                                 std::to_string(spec.vocab_size - 1));
}

// The ids in an option's text, all of which have to be in the vocabulary.
Ids id_list(const std::string& option, const std::string& text, const mythos::LoopSpec& spec) {
  const auto fail = [&](const char* what) { return mythos::RequestError(option + " " + mythos::py_repr(text) + what); };
  std::vector<std::string> parts;
  for (std::size_t i = 0; i <= text.size();) {
    const std::size_t end = std::min(text.find(',', i), text.size());
    std::string part = text.substr(i, end - i);
    part.erase(0, part.find_first_not_of(" \t\n\r"));
    part.erase(part.find_last_not_of(" \t\n\r") + 1);
    parts.push_back(part);
    i = end + 1;
  }
  const auto digits = [](const std::string& part) {
    return !part.empty() && part.find_first_not_of("0123456789") == part.npos;
  };
  for (const std::string& part : parts)
    if (part.size() > 1 && part[0] == '-' && digits(part.substr(1)))
      throw fail(" holds a negative number; ids are from 0 on, as in 1,2,3");
  for (const std::string& part : parts)
    if (!digits(part)) throw fail(" is not a list of ids; expected one like 1,2,3");
  for (const std::string& part : parts)
    if (part.size() - std::min(part.find_first_not_of('0'), part.size()) > 18)
      throw fail(" holds a number that no vocabulary has; expected a list like 1,2,3");
  Ids ids;
  for (const std::string& part : parts) ids.push_back(std::strtoll(part.c_str(), nullptr, 10));
  check_known(ids, option, spec);
  return ids;
}

// A prompt from a file or from stdin; whole, its last newline included.
std::string read_prompt(const std::string& path) {
  const bool is_stdin = path == "-";
  const std::string what = is_stdin ? "the prompt" : "the prompt in " + path;
  errno = 0;
  std::FILE* file = is_stdin ? stdin : std::fopen(path.c_str(), "rb");
  std::string text(1 << 16, '\0');
  std::size_t size = 0;
  for (std::size_t got; file && (got = std::fread(&text[size], 1, text.size() - size, file)) > 0;)
    if ((size += got) == text.size()) text.resize(2 * size);
  const bool failed = !file || std::ferror(file);
  const int code = errno;
  if (file && !is_stdin) std::fclose(file);
  if (failed) throw mythos::RequestError(what + " cannot be read: " + std::strerror(code));
  text.resize(size);
  mythos::check_utf8(text, what);
  return text.rfind("\xEF\xBB\xBF", 0) == 0 ? text.substr(3) : text;  // a BOM is no part of a text
}

// Passes text on up to the first of the stop texts, which is not part of it; holds back what may begin one (stops.py).
class StopTexts {
 public:
  explicit StopTexts(const std::vector<std::string>& texts) : texts_(texts) {
    for (const std::string& text : texts) {
      if (text.empty()) throw mythos::RequestError("a stop text is empty; it should hold at least one character");
      longest_ = std::max(longest_, text.size());
    }
  }

  std::string feed(const std::string& piece) {
    if (found) return "";
    const std::string text = held_ + piece;
    std::size_t first = text.npos, begin = 0;  // the one complete first, however the pieces were cut
    for (const std::string& stop : texts_)
      if (const std::size_t at = text.find(stop);
          at != text.npos && (at + stop.size() < first || (at + stop.size() == first && at < begin)))
        first = at + stop.size(), begin = at;
    found = first != text.npos;
    std::size_t shown = found ? begin : text.size() - std::min(text.size(), longest_ ? longest_ - 1 : 0);
    while (!found && shown < text.size() && !begins(text.substr(shown))) ++shown;
    held_ = found ? "" : text.substr(shown);
    return text.substr(0, shown);
  }
  // What was held back and began no stop text after all.
  std::string finish() { return std::exchange(held_, ""); }

  bool found = false;

 private:
  bool begins(const std::string& text) const {
    return std::any_of(texts_.begin(), texts_.end(), [&](const auto& stop) { return stop.rfind(text, 0) == 0; });
  }
  const std::vector<std::string>& texts_;
  std::size_t longest_ = 0;
  std::string held_;
};

}  // namespace

Ids prompt_ids(const mythos::Model& model, const Arguments& arguments) {
  std::vector<std::string> given;
  if (arguments.prompt) given.push_back("--prompt");
  if (arguments.file) given.push_back("--file");
  if (arguments.ids) given.push_back("--ids");
  if (given.empty()) throw mythos::RequestError("give a prompt: one of --prompt TEXT, --file FILE or --ids 1,2,3");
  if (given.size() > 1) {
    std::string names = given[0];
    for (std::size_t i = 1; i < given.size(); ++i) names += " and " + given[i];
    throw mythos::RequestError(names + " are prompts, and one is taken: give one of them");
  }
  if (arguments.system && !arguments.chat)
    throw mythos::RequestError("--system is a message of a conversation: give --chat too");
  if (arguments.ids && arguments.chat)
    throw mythos::RequestError("--chat makes a prompt of text: give --prompt or --file instead of --ids");
  if (arguments.ids) return id_list("--ids", *arguments.ids, model.spec());
  const auto tokenizer = model.tokenizer();
  if (!tokenizer) throw mythos::RequestError("this bundle has no tokenizer; give --ids, or export it with --tokenizer");
  const bool here = arguments.prompt && *arguments.prompt != "-";
  const std::string text = here ? *arguments.prompt : read_prompt(arguments.file.value_or("-"));
  if (!arguments.chat) {
    const Ids ids = tokenizer->encode(text);
    if (ids.empty()) throw mythos::RequestError("the prompt of " + given[0] + " is empty; it should hold at least one token");
    return ids;
  }
  std::vector<mythos::ChatMessage> messages;
  if (arguments.system) messages.push_back({"system", *arguments.system});
  messages.push_back({"user", text});
  return model.encode_chat(messages);
}

std::int64_t speculation(const std::string& text, const mythos::Model& model, const mythos::GenerateOptions& options) {
  if (text == "auto") return mythos::kAuto;
  if (text == "off") return 0;
  const std::int64_t loops = text.find_first_not_of("0123456789") == text.npos ? std::strtoll(text.c_str(), nullptr, 10) : 0;
  if (loops < 1) throw mythos::RequestError("--speculate " + mythos::py_repr(text) + " is not auto, off, or a number of loops from 1 on");
  const std::int64_t most = options.forward.max_loops.value_or(model.spec().trained_loops);
  if (loops >= most && most > 0)  // a token would have run them all
    throw mythos::RequestError("--speculate " + std::to_string(loops) + " drafts nothing, as a token runs at most " +
                               std::to_string(most) + (most == 1 ? " loop" : " loops") + ": give fewer, or auto");
  return loops;
}

mythos::GenerateOptions plan(const mythos::Model& model, std::size_t prompt_tokens, const Arguments& arguments,
                             const Write& note) {
  const mythos::TokenizerEntry& entry = model.tokenizer_entry();
  const mythos::LoopSpec& spec = model.spec();
  mythos::GenerateOptions options = arguments.generate;
  mythos::SamplingOptions& sampling = options.sampling;
  std::string taken;
  const auto choose = [&](const char* name, const auto& given, auto& value, const char* option) {
    const auto found = entry.defaults.find(name);
    if (given) value = *given;
    if (given || found == entry.defaults.end()) return;
    value = static_cast<std::decay_t<decltype(value)>>(found->second);
    const bool whole = std::is_integral_v<std::decay_t<decltype(value)>>;
    taken += (taken.empty() ? "" : ", ") + std::string(option) + " " +
             (whole ? std::to_string(static_cast<std::int64_t>(found->second)) : mythos::py_repr(found->second));
  };
  choose("temperature", arguments.temperature, sampling.temperature, "--temperature");
  choose("top_k", arguments.top_k, sampling.top_k, "--top-k");
  choose("top_p", arguments.top_p, sampling.top_p, "--top-p");
  choose("min_p", arguments.min_p, sampling.min_p, "--min-p");
  choose("repetition_penalty", arguments.repetition_penalty, sampling.repetition_penalty, "--repetition-penalty");
  if (!taken.empty()) {
    const auto source = entry.sources.find("defaults");
    note("defaults of the bundle (" + (source == entry.sources.end() ? "the bundle" : source->second) + "): " + taken);
  }
  options.max_new_tokens = arguments.max_new_tokens;
  if (!options.max_new_tokens) {
    const auto wanted = entry.defaults.find("max_new_tokens");
    const std::int64_t room = spec.max_seq_len - static_cast<std::int64_t>(prompt_tokens) + 1;
    const std::int64_t most = std::min(spec.max_output_tokens, std::max<std::int64_t>(room, 1));  // none: refused later
    options.max_new_tokens =
        std::min(wanted == entry.defaults.end() ? kNewTokens : static_cast<std::int64_t>(wanted->second), most);
  }
  if (arguments.ignore_eos && !arguments.eos.empty())
    throw mythos::RequestError("--ignore-eos goes on after every EOS, so --eos says nothing: give one of them");
  check_known(arguments.eos, "--eos", spec);
  if (!arguments.stop.empty() && entry.kind != "bytes" && entry.kind != "tokenizer.json")
    throw mythos::RequestError("--stop is text, and this bundle has no tokenizer; give --stop-ids 4,5");
  if (arguments.ignore_eos || !arguments.eos.empty()) options.eos = arguments.eos;
  for (const std::string& text : arguments.stop_ids) options.stop.push_back(id_list("--stop-ids", text, spec));
  return options;
}

Run stream(mythos::Model& model, const Ids& ids, const mythos::GenerateOptions& options,
           const std::vector<std::string>& stops, const Write& write, const Write& note) {
  std::unique_ptr<mythos::Tokenizer::Stream> decoder;
  try {
    if (const auto tokenizer = model.tokenizer()) decoder = tokenizer->stream();
  } catch (const mythos::BackendMissing& error) {  // a prompt of ids was given, and ids come out
    if (!stops.empty()) throw;
    note(error.what());
  }
  StopTexts stop(stops);
  Run run;
  if (decoder) run.text = "";
  const auto show = [&](const std::string& text) {
    *run.text += text;
    if (!text.empty()) write(text);
  };
  model.generate({ids}, options, [&](const mythos::Step& step) {
    (run.tokens.empty() ? run.prefill_seconds : run.decode_seconds) += step.seconds;
    run.tokens.push_back(step.tokens[0]);
    run.depth.push_back(step.depth[0]);
    run.loops.push_back(step.loops);
    run.capped += step.capped[0];
    run.finished = step.finished[0];
    run.counts = step.counts;
    if (!decoder) {
      write(std::to_string(step.tokens[0]) + " ");
      return true;
    }
    show(stop.feed(decoder->feed(step.tokens[0])));
    if (stop.found) run.finished = "stop";
    return !stop.found;
  });
  if (decoder) {
    const std::string rest = stop.feed(decoder->finish());
    show(rest + stop.finish());
  }
  write("\n");
  return run;
}

void write_trace(const std::string& path, std::size_t prompt, const Run& run) {
  std::string text = "{\"requests\": [{\"prompt\": " + std::to_string(prompt) + ", \"depth\": [";
  for (std::size_t i = 0; i < run.depth.size(); ++i) text += (i ? ", " : "") + std::to_string(run.depth[i]);
  text += "]}]}\n";
  write_output(path, text, "--depth-trace");
}

double Run::tokens_per_second() const {
  return decode_seconds > 0 ? static_cast<double>(tokens.size() - 1) / decode_seconds : 0.0;
}

std::string Run::summary(const std::string& policy, const std::string& bar) const {
  constexpr int kBar = 40;  // characters of the histogram's longest bar
  std::map<int, int> counts;
  double total = 0;
  for (const int each : depth) {
    ++counts[each];
    total += each;
  }
  char line[200];
  if (tokens.size() == 1)  // none after it to have a speed
    std::snprintf(line, sizeof line, "1 token in %.1f ms", 1e3 * prefill_seconds);
  else
    std::snprintf(line, sizeof line, "%zu tokens, %.1f tokens/s after the first (%.1f ms)", tokens.size(), tokens_per_second(),
                  1e3 * prefill_seconds);
  std::string text = line;
  std::snprintf(line, sizeof line, ", mean depth %.1f loops, cache policy ", total / static_cast<double>(depth.size()));
  text += line + policy + "\n";
  if (capped) text += std::to_string(capped) + " of them went no deeper because of the budget\n";
  int most = 0;
  for (const auto& [each, count] : counts) most = std::max(most, count);
  for (int each = counts.begin()->first; each <= counts.rbegin()->first; ++each) {
    const int count = counts.count(each) ? counts[each] : 0;
    std::snprintf(line, sizeof line, "  %3d %s %5d ", each, each == 1 ? "loop " : "loops", count);
    text += line;
    for (int i = static_cast<int>(std::nearbyint(double{kBar} * count / most)); i > 0; --i) text += bar;
    text += "\n";
  }
  return text;
}
