#include "linked.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <set>
#include <tuple>

#include "files.hpp"
#include "text.hpp"

namespace mythos {
namespace fs = std::filesystem;
namespace {

constexpr std::int64_t kMostPath = 4096, kMostSize = std::int64_t{1} << 40;
const std::map<std::string, std::int64_t> kBytes{{"float32", 4}, {"float16", 2}};

// Files whose hash was held to a manifest's in this process.
using Identity = std::tuple<dev_t, ino_t, off_t, std::int64_t, std::int64_t, std::string>;
std::set<Identity>& checked() {
  static std::set<Identity> files;
  return files;
}
std::mutex checking;

std::int64_t page_size() {
  static const std::int64_t size = sysconf(_SC_PAGESIZE);
  return size;
}

LinkedTensor tensor_of(Fields fields, const std::vector<LinkedFile>& files) {
  LinkedTensor tensor;
  tensor.dtype = fields.choice("dtype", {"float32", "float16"});
  tensor.bytes = kBytes.at(tensor.dtype);
  const Json* const shape = fields.peek("shape");  // there, where `listed` does not throw
  for (const Json& size : fields.listed("shape")) {
    std::int64_t value = 0;
    if (!size.as_int64(value) || value < 1 || value >= kMostSize || tensor.bytes > kMaxInteger / value)
      throw fields.fail("shape", "a list of positive integers", *shape);
    tensor.shape.push_back(value);
    tensor.bytes *= value;
  }
  if (tensor.shape.empty()) throw fields.fail("shape", "a list of positive integers", *shape);
  std::int64_t together = 0;
  fields.each("stretches", [&](Fields entry) {
    Stretch found;
    found.file = entry.integer("file", 0, static_cast<std::int64_t>(files.size()) - 1);
    found.start = entry.integer("start");
    found.bytes = entry.integer("bytes", 1);
    const std::int64_t whole = files[static_cast<std::size_t>(found.file)].bytes;
    if (found.start > whole || found.bytes > whole - found.start)
      throw entry.fail("bytes", "a stretch that ends within its file", std::to_string(found.bytes));
    entry.done();
    together = found.bytes > kMaxInteger - together ? kMaxInteger : together + found.bytes;
    tensor.stretches.push_back(found);
  });
  if (together != tensor.bytes)
    throw fields.fail("stretches", "stretches of " + std::to_string(tensor.bytes) + " bytes together",
                      std::to_string(tensor.stretches.size()));
  fields.done();
  return tensor;
}

std::string found_at(const std::string& folder, const LinkedFile& file, const std::string& given) {
  std::error_code error;
  if (given.empty()) return (fs::path(folder) / file.path).string();
  return fs::is_directory(given, error) ? (fs::path(given) / fs::path(file.path).filename()).string() : given;
}

void check(const std::string& folder, const std::string& path, const LinkedFile& file, bool verify_hash) {
  const std::string advice = "put it back, or say where it is now (load(..., weights=PATH), --weights PATH)";
  const std::string begin = folder + ": its weights ";
  struct stat found {};
  if (::stat(path.c_str(), &found) != 0) {
    if (errno == ENOENT || errno == ENOTDIR)
      throw BundleError(begin + "are in " + path + ", which is not there; " + advice);
    throw BundleError(begin + "are in " + path + ", which cannot be read: " + os_error(errno, path));
  }
  if (!S_ISREG(found.st_mode)) throw BundleError(begin + "should be in " + path + ", which is no regular file; " + advice);
  if (found.st_size != file.bytes)
    throw BundleError(begin + "are in " + path + ", which has " + std::to_string(found.st_size) + " bytes, and had " +
                      std::to_string(file.bytes) +
                      " at the export: it was changed, so export the model again, or put the old file back");
  const Identity identity{found.st_dev, found.st_ino, found.st_size, found.st_mtim.tv_sec, found.st_mtim.tv_nsec, file.sha256};
  const std::lock_guard<std::mutex> lock(checking);
  if (!verify_hash || checked().count(identity)) return;
  std::string hash;
  try {
    hash = sha256_of(path);
  } catch (const std::system_error& error) {
    throw BundleError(begin + "are in " + path + ", which cannot be read: " + os_error(error.code().value(), path));
  }
  if (hash != file.sha256)
    throw BundleError(begin + "are in " + path + ", whose content is not that of the export (its SHA-256 differs from the "
                      "manifest's): export the model again, or put the old file back");
  checked().insert(identity);
}

[[noreturn]] void cannot_map(const std::string& folder, int code) {
  throw BundleError(folder + ": its weights cannot be mapped: [Errno " + std::to_string(code) + "] " + std::strerror(code));
}

// Closed when they go.
struct Handles {
  std::vector<int> all;
  ~Handles() {
    for (const int handle : all) ::close(handle);
  }
};

}  // namespace

std::shared_ptr<const Links> read_links(Fields& top) {
  const Json* value = top.peek("links");
  if (!value || value->kind == Json::Kind::null) {
    if (value) top.take("links");
    return nullptr;
  }
  auto links = std::make_shared<Links>();
  Fields fields = top.inner("links");
  fields.each("files", [&](Fields entry) {
    LinkedFile file;
    file.path = entry.text("path");
    file.sha256 = entry.text("sha256");
    if (static_cast<std::int64_t>(file.path.size()) > kMostPath)
      throw entry.fail("path", "a path of at most " + std::to_string(kMostPath) + " bytes", file.path);
    if (file.sha256.size() != 64 || file.sha256.find_first_not_of("0123456789abcdef") != file.sha256.npos)
      throw entry.fail("sha256", "64 lower-case hexadecimal digits", file.sha256);
    file.bytes = entry.integer("bytes");
    entry.done();
    links->files.push_back(std::move(file));
  });
  Fields listed = fields.inner("tensors");
  for (const std::string& name : listed.names()) links->tensors.emplace(name, tensor_of(listed.inner(name), links->files));
  fields.done();
  return links;
}

Linked::Linked(const std::string& folder, const Links& links, const std::string& given, bool verify_hashes) {
  Handles handles;
  std::vector<std::string> paths;
  for (const LinkedFile& file : links.files) {
    paths.push_back(found_at(folder, file, given));
    check(folder, paths.back(), file, verify_hashes || given.empty());
  }
  for (const std::string& path : paths) {
    handles.all.push_back(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (handles.all.back() < 0) {
      const int code = errno;
      handles.all.pop_back();
      throw BundleError(folder + ": its weights cannot be read: " + os_error(code, path));
    }
  }
  try {
    for (const auto& [name, tensor] : links.tensors) map(folder, tensor, handles.all, tensors_[name]);
  } catch (...) {
    for (const auto& [base, size] : regions_) ::munmap(base, size);
    throw;
  }
}

Linked::~Linked() {
  for (const auto& [base, size] : regions_) ::munmap(base, size);
}

// Whole pages of the file beside each other; what shares a page with another stretch is copied, as is a stretch that lies
// differently within its pages.
void Linked::map(const std::string& folder, const LinkedTensor& tensor, const std::vector<int>& handles, Tensor& out) {
  const std::int64_t page = page_size(), first = tensor.stretches.front().start % page;
  const auto size = static_cast<std::size_t>((first + tensor.bytes + page - 1) / page * page);
  void* base = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) cannot_map(folder, errno);
  regions_.emplace_back(base, size);
  auto* const memory = static_cast<char*>(base);
  const auto copy = [&](int handle, std::int64_t from, std::int64_t to, std::int64_t count) {
    while (count > 0) {
      const ssize_t got = ::pread(handle, memory + to, static_cast<std::size_t>(count), from);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) throw BundleError(folder + ": its weights cannot be mapped: " +
                                      (got ? std::strerror(errno) : "the file became shorter while it was read"));
      from += got, to += got, count -= got;
    }
  };
  std::int64_t at = first;
  for (const Stretch& stretch : tensor.stretches) {
    const int handle = handles[static_cast<std::size_t>(stretch.file)];
    const std::int64_t end = at + stretch.bytes, begin = (at + page - 1) / page * page, stop = end / page * page;
    if ((stretch.start - at) % page == 0 && begin < stop) {
      const void* placed = ::mmap(memory + begin, static_cast<std::size_t>(stop - begin), PROT_READ, MAP_PRIVATE | MAP_FIXED,
                                  handle, stretch.start + begin - at);
      if (placed == MAP_FAILED) cannot_map(folder, errno);
      copy(handle, stretch.start, at, begin - at);
      copy(handle, stretch.start + stop - at, stop, end - stop);
    } else {
      copy(handle, stretch.start, at, stretch.bytes);
    }
    at = end;
  }
  out = {tensor.dtype, tensor.shape, memory + first};
}

std::shared_ptr<const Linked> open_linked(const std::string& folder, const std::shared_ptr<const Links>& links,
                                          const std::string& given, bool verify_hashes) {
  if (!links) return nullptr;
  return std::make_shared<const Linked>(folder, *links, given, verify_hashes);
}

}  // namespace mythos
