#include "output.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "mythos_runtime.hpp"

namespace fs = std::filesystem;

namespace {

[[noreturn]] void refuse(const std::string& path, int code, const std::string& option) {
  const std::string begin = "cannot write " + path + ": ", end = "name another place with " + option;
  const auto full = [&](const char* what) { return mythos::Error(begin + what + "; make room, or " + end, 3); };
  const auto closed = [&](const char* what) { return mythos::Error(begin + what + "; " + end, 3); };
  switch (code) {
    case ENOSPC: throw full("there is no space left on the disk");
    case EDQUOT: throw full("the disk quota is used up");
    case EFBIG: throw full("a file would grow larger than is allowed (ulimit -f, or the file system)");
    case EIO: throw full("the disk reports an input/output error");
    case EROFS: throw closed("the file system is read-only");
    case EACCES: throw closed("permission denied");
    case EPERM: throw closed("operation not permitted");
    case EISDIR: throw mythos::RequestError(begin + "it is a folder; " + end);
    case ENOTDIR: throw mythos::RequestError(begin + "a file stands where a folder should; " + end);
    case ENOENT: {
      const std::string parent = fs::path(path).parent_path().string();
      throw mythos::RequestError(begin + "there is no folder " + (parent.empty() ? "." : parent) + "; make it, or " + end);
    }
    default: throw mythos::RequestError(begin + std::strerror(code) + "; " + end);
  }
}

// A pipe or a device, which is written to and never replaced.
bool is_special(const std::string& path) {
  std::error_code none;
  const fs::file_status found = fs::status(path, none);
  return fs::exists(found) && !fs::is_regular_file(found) && !fs::is_directory(found);
}

// 0, or the system's number for what went wrong.
int write_all(int file, const std::string& text) {
  for (std::size_t done = 0; done < text.size();) {
    const ssize_t got = ::write(file, text.data() + done, text.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno;
    done += static_cast<std::size_t>(got);
  }
  return 0;
}

// Writes a draft beside the file, and puts it in its place, or takes it away again: `keep` says which.
void write_draft(const std::string& path, const std::string& text, const std::string& option, bool keep) {
  std::error_code failed;
  if (fs::is_directory(path, failed)) refuse(path, EISDIR, option);
  const fs::path linked = fs::weakly_canonical(path, failed);  // where a link leads, the link stays
  const fs::path place = failed ? fs::path(path) : linked;
  const std::string draft =
      (place.parent_path() / ("." + place.filename().string() + "." + std::to_string(::getpid()) + ".partial")).string();
  const int file = ::open(draft.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (file < 0) refuse(path, errno, option);
  int code = write_all(file, text);
  if (code == 0 && keep && ::fsync(file) != 0) code = errno;
  if (::close(file) != 0 && code == 0) code = errno;
  if (code == 0 && keep && std::rename(draft.c_str(), place.c_str()) != 0) code = errno;
  if (code != 0 || !keep) ::unlink(draft.c_str());
  if (code != 0) refuse(path, code, option);
}

}  // namespace

void check_output(const std::string& path, const std::string& option) {
  if (!is_special(path)) write_draft(path, "\n", option, false);  // a byte: a full disk still takes names
}

void write_output(const std::string& path, const std::string& text, const std::string& option) {
  if (!is_special(path)) return write_draft(path, text, option, true);
  const int file = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  int code = file < 0 ? errno : write_all(file, text);
  if (file >= 0 && ::close(file) != 0 && code == 0) code = errno;
  if (code != 0) refuse(path, code, option);
}
