// mythos_run: `mythos run` without Python. Same options, same texts, same exit codes, same last line.
#include <langinfo.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <algorithm>
#include <cerrno>
#include <clocale>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <thread>

#include "generation.hpp"
#include "output.hpp"

namespace {

constexpr int kClosedPipe = 141;  // 128 + SIGPIPE, as a shell shows it

// On stdout, at once. Every write is checked: output that is lost must not look like success.
void write(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0) return;
  if (errno == EPIPE) std::_Exit(kClosedPipe);  // nobody reads on, so there is nobody to tell
  throw mythos::Error("cannot write to the standard output: " + std::string(std::strerror(errno)), 3);
}

void say(const std::string& text) { std::fprintf(stderr, "%s\n", text.c_str()); }

// What the histogram is drawn with; a terminal of another encoding would show something else.
std::string bar() {
  std::setlocale(LC_CTYPE, "");
  const std::string encoding = nl_langinfo(CODESET);
  return encoding == "UTF-8" || encoding == "ANSI_X3.4-1968" ? "█" : "#";  // the latter: no locale at all
}

mythos::LoadOptions bounded_threads(mythos::LoadOptions load) {
  const int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  if (load.threads && *load.threads > cores) {
    const std::string have = std::to_string(cores);
    say("--threads " + std::to_string(*load.threads) + ": this process may use " + have + " cores, so it takes " + have);
    load.threads = cores;
  }
  return load;
}

void run(const Arguments& arguments) {
  if (arguments.depth_trace) check_output(*arguments.depth_trace, "--depth-trace");
  mythos::Model model = mythos::Model::load(arguments.bundle, bounded_threads(arguments.load));
  if (arguments.verbose) say(arguments.bundle + ": " + model.description());
  if (model.not_verified())
    say("this bundle is not verified: nothing in it was compared with its model (it was exported with --verify later); "
        "mythos verify BUNDLE --against CHECKPOINT does that");
  if (model.operators() == "portable")
    say("no library of native operators is loaded: the portable ones serve, which are slower");
  const Ids ids = prompt_ids(model, arguments);
  if (arguments.verbose) say(std::to_string(ids.size()) + " prompt tokens");
  mythos::GenerateOptions options = plan(model, ids.size(), arguments, say);
  options.speculate = speculation(arguments.speculate, model, options);
  const Write unshown = [](const std::string&) {};  // the JSON holds the text
  const Run done = stream(model, ids, options, arguments.stop, arguments.json ? unshown : write, say);
  if (arguments.depth_trace) write_trace(*arguments.depth_trace, ids.size(), done);
  const std::string policy = !options.policy.empty() ? options.policy : model.runs_rows() ? "lazy" : "full";
  std::fputs(done.summary(policy, bar()).c_str(), stderr);
  if (!arguments.json) return;
  const nlohmann::ordered_json text = done.text ? nlohmann::ordered_json(*done.text) : nlohmann::ordered_json();
  write(nlohmann::ordered_json{{"text", text},
                               {"tokens", done.tokens},
                               {"depth", done.depth},
                               {"loops", done.loops},
                               {"capped", done.capped},
                               {"tokens_per_second", done.tokens_per_second()},
                               {"prefill_seconds", done.prefill_seconds},
                               {"policy", policy},
                               {"finished", done.finished},
                               {"operators", model.operators()},
                               {"steps", done.counts.steps},
                               {"rows", done.counts.rows},
                               {"late", done.counts.late},
                               {"drafted", done.counts.drafted},
                               {"accepted", done.counts.accepted}}.dump() + "\n");
}

// Large blocks go back to the system as soon as they are freed. By itself glibc raises the size from which on they do to
// that of the largest freed so far, and they leave holes in the heap. Intermediate results of a chunk of a prompt are
// smaller: mapping each of them anew costs a prompt an eighth of its time.
void return_large_blocks() {
#if defined(__GLIBC__)
  mallopt(M_MMAP_THRESHOLD, 4 << 20);
  mallopt(M_TRIM_THRESHOLD, 16 << 20);
#endif
}

}  // namespace

int main(int count, char** values) {
  return_large_blocks();
  std::signal(SIGPIPE, SIG_IGN);  // write() sees it
  try {
    std::string answer;
    const Arguments arguments = parse_arguments(count, values, answer);
    if (answer.empty())
      run(arguments);
    else
      write(answer);
    return 0;
  } catch (const UsageError& error) {
    say("error: " + error.text + "; see mythos_run --help");
    return 2;
  } catch (const mythos::RequestError& error) {
    say("error: " + with_option_names(error.what()));
    return error.exit_code();
  } catch (const mythos::Error& error) {
    say(std::string("error: ") + error.what());
    return error.exit_code();
  } catch (const std::exception& error) {  // such as no memory
    say(std::string("error: ") + error.what());
    return 3;
  }
}
