#include "files.hpp"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <system_error>
#include <vector>

#include "mythos_runtime.hpp"
#include "sha256.hpp"
#include "text.hpp"

namespace mythos {
namespace fs = std::filesystem;
namespace {

struct Close {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

bool is_below(const fs::path& path, const fs::path& folder) {
  auto part = path.begin();
  for (const auto& expected : folder)
    if (part == path.end() || *part++ != expected) return false;
  return true;
}

// How far links in a folder may lead: nowhere else; in the hub's cache, whose snapshots are links to its blobs
// (models--owner--name/snapshots/REVISION/file -> ../../blobs/HASH), within that model's part of the cache.
fs::path root_of(const fs::path& folder) {
  for (fs::path parent = folder.parent_path(); parent.has_relative_path(); parent = parent.parent_path())
    if (parent.filename() == "snapshots" && parent.parent_path().filename().string().rfind("models--", 0) == 0)
      return parent.parent_path();
  return folder;
}

}  // namespace

std::string sha256_of(const fs::path& file) {
  const std::unique_ptr<std::FILE, Close> stream(std::fopen(file.c_str(), "rb"));
  if (!stream) throw std::system_error(errno, std::generic_category());
  Sha256 digest;
  std::vector<unsigned char> buffer(std::size_t{1} << 20);
  for (std::size_t got; (got = std::fread(buffer.data(), 1, buffer.size(), stream.get())) > 0;)
    digest.update(buffer.data(), got);
  if (std::ferror(stream.get())) throw std::system_error(errno, std::generic_category());
  return hex(digest.digest());
}

std::string plain_path(const std::string& path) {
  std::string out = path.empty() || path[0] != '/' ? "" : path.rfind("//", 0) == 0 && path.rfind("///", 0) != 0 ? "//" : "/";
  for (std::size_t i = 0; i <= path.size();) {
    const std::size_t end = std::min(path.find('/', i), path.size());
    const std::string part = path.substr(i, end - i);
    if (!part.empty() && part != ".") out += (out.empty() || out.back() == '/' ? "" : "/") + part;
    i = end + 1;
  }
  return out.empty() ? "." : out;
}

std::string os_error(int code, const std::string& path) {
  return "[Errno " + std::to_string(code) + "] " + std::strerror(code) + ": " + py_repr(path);
}

const char* path_problem(std::string_view path) {
  if (!is_printable(path) || path.find('\\') != path.npos || path.find(':') != path.npos)
    return "it holds a backslash, a colon or an unprintable character";
  if (!path.empty() && path[0] == '/') return "it is absolute";
  bool leaves = false, empty = false, is_long = path.size() > 1024;
  for (std::size_t i = 0; i <= path.size();) {
    const std::size_t end = std::min(path.find('/', i), path.size());
    const auto part = path.substr(i, end - i);
    leaves = leaves || part == "..";
    empty = empty || part.empty() || part == ".";
    is_long = is_long || part.size() > 255;
    i = end + 1;
  }
  return leaves ? "it leaves the bundle" : empty ? "it has an empty part" : is_long ? "it is too long" : nullptr;
}

fs::path locate(const std::string& folder, const std::string& path) {
  if (const char* problem = path_problem(path))
    throw BundleError(folder + ": the path " + py_repr(path, true) + " may not stand in a manifest: " + problem);
  const fs::path file = fs::path(folder) / path;
  std::error_code error;
  const fs::path real = fs::canonical(file, error);
  const fs::path root = error ? fs::path() : root_of(fs::canonical(folder, error));
  if (error == std::errc::no_such_file_or_directory)
    throw BundleError(folder + ": the file " + path + " is missing; export or copy the bundle again");
  const bool regular = !error && fs::is_regular_file(real, error);
  if (error)
    throw BundleError(folder + ": the file " + path + " cannot be reached: " + os_error(error.value(), file.string()));
  if (!is_below(real, root))
    throw BundleError(folder + ": the file " + path + " is a link that leaves the bundle (to " + real.string() + ")");
  if (!regular) throw BundleError(folder + ": " + path + " is not a regular file");
  return file;
}

void check_file(const std::string& folder, const std::string& path, const FileEntry& entry, bool verify_hash) {
  const fs::path file = locate(folder, path);
  std::error_code error;
  const auto size = fs::file_size(file, error);
  if (error)
    throw BundleError(folder + ": the file " + path + " cannot be read: " + os_error(error.value(), file.string()));
  if (static_cast<std::int64_t>(size) != entry.bytes)
    throw BundleError(folder + ": the file " + path + " has " + std::to_string(size) + " bytes, the manifest says " +
                      std::to_string(entry.bytes) +
                      ": it is cut off or was changed; export or copy the bundle again");
  std::string hash = entry.sha256;
  try {
    if (verify_hash) hash = sha256_of(file);
  } catch (const std::system_error& failed) {
    throw BundleError(folder + ": the file " + path + " cannot be read: " + os_error(failed.code().value(), file.string()));
  }
  if (hash != entry.sha256)
    throw BundleError(folder + ": the content of " + path +
                      " is not what was exported (its SHA-256 differs from the manifest's); export or copy the bundle "
                      "again");
}

}  // namespace mythos
