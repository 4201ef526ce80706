#include "tokenizer_json.hpp"

#include <dlfcn.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>
#include <vector>

#include "files.hpp"
#include "text.hpp"

namespace mythos {
namespace fs = std::filesystem;
namespace {

constexpr std::uint32_t kInterface = 2;  // of runtimes/tokenizer/src/lib.rs, which says what its functions do

struct Buffer {
  std::uint8_t* data = nullptr;
  std::size_t bytes = 0;
};

struct Functions {
  std::uint32_t (*interface)();
  void (*release)(Buffer);
  void* (*read)(const std::uint8_t*, std::size_t, Buffer*);
  void (*close)(void*);
  std::int64_t (*largest)(const void*);
  bool (*encode)(const void*, const std::uint8_t*, std::size_t, bool, Buffer*);
  bool (*decode)(const void*, const std::uint32_t*, std::size_t, Buffer*);
  void* (*stream)(const void*);
  bool (*chat)(const std::uint8_t*, std::size_t, const std::uint8_t*, std::size_t, Buffer*);
  bool (*feed)(void*, std::uint32_t, Buffer*);
  bool (*finish)(void*, Buffer*);
  void (*stream_close)(void*);
};

// The file that MYTHOS_TOKENIZER names, or the one beside this code, where the build and the installation put it.
std::string library() {
  if (const char* named = std::getenv("MYTHOS_TOKENIZER")) return named;
  Dl_info info{};
  std::error_code error;
  if (!dladdr(reinterpret_cast<void*>(&library), &info) || !info.dli_fname) return "";
  const fs::path beside = fs::canonical(info.dli_fname, error).parent_path() / "libmythos_tokenizer.so";
  return fs::is_regular_file(beside, error) ? beside.string() : "";
}

Functions open() {
  constexpr const char* kRemedy =
      ": run make tokenizer in the source, which needs cargo, and name the file that it makes in MYTHOS_TOKENIZER; or give "
      "ids";
  const std::string path = library();
  if (path.empty())
    throw BackendMissing(std::string("this C++ runtime was installed without libmythos_tokenizer.so, which reads a "
                                     "tokenizer.json and chat templates") + kRemedy);
  void* const opened = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);  // for as long as the process lives
  if (!opened) throw BackendMissing(std::string(dlerror()) + kRemedy);
  const auto find = [&](const char* name, auto& function) {
    void* const symbol = dlsym(opened, (std::string("mythos_tokenizer_") + name).c_str());
    if (!symbol) throw BackendMissing(path + " has no function mythos_tokenizer_" + name + kRemedy);
    function = reinterpret_cast<std::decay_t<decltype(function)>>(symbol);
  };
  Functions f{};
  find("interface", f.interface);
  if (f.interface() != kInterface)
    throw BackendMissing(path + " has the interface " + std::to_string(f.interface()) + ", this program expects " +
                         std::to_string(kInterface) + kRemedy);
  find("release", f.release), find("read", f.read), find("close", f.close), find("largest", f.largest);
  find("encode", f.encode), find("decode", f.decode), find("chat", f.chat), find("stream", f.stream);
  find("feed", f.feed), find("finish", f.finish), find("stream_close", f.stream_close);
  return f;
}

const Functions& functions() {
  static const Functions found = open();
  return found;
}

std::string taken(Buffer buffer) {
  const std::string content(reinterpret_cast<const char*>(buffer.data), buffer.bytes);
  functions().release(buffer);
  return content;
}

std::string checked(bool done, Buffer buffer) {
  std::string content = taken(buffer);
  if (!done) throw RequestError("the tokenizer.json refuses this: " + content);
  return content;
}

std::uint32_t as_id(std::int64_t id) {
  if (id < 0 || id > UINT32_MAX) throw RequestError(std::to_string(id) + " is no token id");
  return static_cast<std::uint32_t>(id);
}

}  // namespace

class JsonFile {
 public:
  JsonFile(const std::string& content, const std::string& path) {
    Buffer error;
    read_ = functions().read(reinterpret_cast<const std::uint8_t*>(content.data()), content.size(), &error);
    if (!read_) throw BundleError(path + " is not a readable tokenizer.json: " + taken(error));
  }
  ~JsonFile() { functions().close(read_); }
  JsonFile(const JsonFile&) = delete;
  JsonFile& operator=(const JsonFile&) = delete;
  const void* get() const { return read_; }

 private:
  void* read_;
};

namespace {

class JsonStream : public Tokenizer::Stream {
 public:
  explicit JsonStream(std::shared_ptr<JsonFile> file) : file_(std::move(file)), stream_(functions().stream(file_->get())) {}
  ~JsonStream() override { functions().stream_close(stream_); }
  std::string feed(std::int64_t id) override {
    Buffer text;
    const bool done = functions().feed(stream_, as_id(id), &text);
    return checked(done, text);
  }
  std::string finish() override {
    Buffer text;
    const bool done = functions().finish(stream_, &text);
    return checked(done, text);
  }

 private:
  std::shared_ptr<JsonFile> file_;  // the stream reads it
  void* stream_;
};

class JsonTokenizer : public Tokenizer {
 public:
  explicit JsonTokenizer(std::shared_ptr<JsonFile> file) : file_(std::move(file)) {}
  std::vector<std::int64_t> encode(const std::string& text, bool special) const override {
    check_utf8(text);
    Buffer found;
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(text.data());
    const bool done = functions().encode(file_->get(), bytes, text.size(), special, &found);
    const std::string content = checked(done, found);
    std::vector<std::uint32_t> ids(content.size() / sizeof(std::uint32_t));
    std::memcpy(ids.data(), content.data(), ids.size() * sizeof(std::uint32_t));
    return {ids.begin(), ids.end()};
  }
  std::string decode(const std::vector<std::int64_t>& given) const override {
    std::vector<std::uint32_t> ids;
    for (const std::int64_t id : given) ids.push_back(as_id(id));
    Buffer text;
    const bool done = functions().decode(file_->get(), ids.data(), ids.size(), &text);
    return checked(done, text);
  }
  std::unique_ptr<Stream> stream() const override { return std::make_unique<JsonStream>(file_); }

 private:
  std::shared_ptr<JsonFile> file_;
};

}  // namespace

std::shared_ptr<JsonFile> open_tokenizer_json(const std::string& path, std::int64_t vocab_size) {
  open_tokenizer_library();  // where it is not there, that is the error to name
  std::ifstream stream(path, std::ios::binary);
  const std::string content{std::istreambuf_iterator<char>(stream), {}};
  if (stream.bad() || !stream.is_open()) throw BundleError(path + " cannot be read: " + os_error(errno, path));
  auto file = std::make_shared<JsonFile>(content, path);
  const std::int64_t largest = functions().largest(file->get());
  if (largest >= vocab_size)
    throw RequestError(fs::path(path).filename().string() + " has ids up to " + std::to_string(largest) +
                       ", the model's vocabulary ends at " + std::to_string(vocab_size - 1) + ": it is another model's");
  return file;
}

void open_tokenizer_library() { functions(); }

bool render_template(const std::string& source, const std::string& values, std::string& out) {
  const auto bytes = [](const std::string& text) { return reinterpret_cast<const std::uint8_t*>(text.data()); };
  Buffer text;
  const bool done = functions().chat(bytes(source), source.size(), bytes(values), values.size(), &text);
  out = taken(text);
  return done;
}

std::unique_ptr<Tokenizer> make_json_tokenizer(std::shared_ptr<JsonFile> file) {
  return std::make_unique<JsonTokenizer>(std::move(file));
}

}  // namespace mythos
