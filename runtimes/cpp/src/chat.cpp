#include "chat.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "files.hpp"
#include "text.hpp"
#include "tokenizer_json.hpp"

namespace mythos {
namespace {

constexpr unsigned kSeconds = 10;  // for a conversation, as in chat.py
constexpr rlim_t kMemory = rlim_t{1} << 29;  // bytes beyond what the process has

bool write_all(int file, const char* data, std::size_t size) {
  for (ssize_t done; size; data += done, size -= static_cast<std::size_t>(done))
    if ((done = write(file, data, size)) < 0) return false;
  return true;
}

// In a process of its own, which may take neither long nor much memory: a template is a stranger's program. Its answer goes
// into `pipe`, a byte that says whether there is a text before it. Never returns.
[[noreturn]] void render_here(const std::string& source, const std::string& values, int pipe) {
  for (const int number : {SIGALRM, SIGABRT}) std::signal(number, SIG_DFL);  // whatever the caller makes of them
  sigset_t alarmed;
  sigemptyset(&alarmed);
  sigaddset(&alarmed, SIGALRM);
  sigprocmask(SIG_UNBLOCK, &alarmed, nullptr);
  alarm(kSeconds);
  if (const int nowhere = open("/dev/null", O_WRONLY); nowhere >= 0) dup2(nowhere, STDERR_FILENO);  // last words of an abort
  rlim_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  const rlim_t most = pages * static_cast<rlim_t>(sysconf(_SC_PAGESIZE)) + kMemory;
  const rlimit limit{most, most}, nothing{0, 0};
  if (setrlimit(RLIMIT_AS, &limit) != 0 || setrlimit(RLIMIT_CORE, &nothing) != 0) _exit(1);
  std::string text;
  const char kind = render_template(source, values, text) ? '1' : '0';
  _exit(write_all(pipe, &kind, 1) && write_all(pipe, text.data(), text.size()) ? 0 : 1);
}

}  // namespace

std::string read_template(const std::string& folder, const std::string& path) {
  const std::string file = locate(folder, path).string();
  std::ifstream stream(file, std::ios::binary);
  std::string source{std::istreambuf_iterator<char>(stream), {}};
  const std::string problem = folder + ": the chat template " + path + " cannot be read: ";
  if (stream.bad() || !stream.is_open()) throw BundleError(problem + os_error(errno, file));
  try {
    check_utf8(source, "it");
  } catch (const RequestError& error) {
    throw BundleError(problem + error.what());
  }
  return source;
}

std::string render_chat(const std::string& source, const std::vector<ChatMessage>& messages,
                        const std::map<std::string, std::string>& special_tokens) {
  open_tokenizer_library();
  nlohmann::ordered_json values{{"messages", nlohmann::ordered_json::array()}, {"add_generation_prompt", true}};
  for (const ChatMessage& message : messages) {
    check_utf8(message.role, "a role");
    check_utf8(message.content);
    values["messages"].push_back({{"role", message.role}, {"content", message.content}});
  }
  for (const auto& [name, text] : special_tokens) values[name] = text;
  const std::string given = values.dump();
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) throw BackendFailed("a chat template needs a pipe: " + std::string(std::strerror(errno)));
  const pid_t child = fork();
  if (child == 0) render_here(source, given, ends[1]);
  const int failed = errno;
  close(ends[1]);
  std::string answer(1 << 12, '\0');
  std::size_t size = 0;
  for (ssize_t got; child > 0 && ((got = read(ends[0], &answer[size], answer.size() - size)) > 0 || (got < 0 && errno == EINTR));)
    if (got > 0 && (size += static_cast<std::size_t>(got)) == answer.size()) answer.resize(2 * size);
  close(ends[0]);
  if (child < 0) throw BackendFailed("a chat template needs a process of its own: " + std::string(std::strerror(failed)));
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || size == 0)
    throw RequestError("the chat template refuses this conversation: it took longer than " + std::to_string(kSeconds) +
                       " s, or more memory than it may have");
  if (answer[0] != '1') throw RequestError(answer.substr(1, size - 1));
  return answer.substr(1, size - 1);
}

}  // namespace mythos
