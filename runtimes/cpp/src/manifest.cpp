#include "manifest.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <system_error>

#include "fields.hpp"
#include "spec.hpp"

namespace mythos {
namespace fs = std::filesystem;
namespace {

constexpr std::int64_t kFormatVersion = 2;
const char* const kManifest = "manifest.json";
const char* const kHex = "64 lower-case hexadecimal digits";

bool is_sha256(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == text.npos;
}

void read_files(Fields& top, Manifest& manifest) {
  Fields listed = top.inner("files");
  for (const std::string& path : listed.names()) {
    const char* problem = path_problem(path);
    if (problem || path == "manifest.json")
      throw listed.fail(path, "left out, as its path may not be listed (" +
                                  std::string(problem ? problem : "the manifest itself") + ")", path);
    Fields entry = listed.inner(path);
    const std::string sha256 = entry.text("sha256");
    if (!is_sha256(sha256)) throw entry.fail("sha256", kHex, sha256);
    manifest.files.push_back({path, {sha256, entry.integer("bytes")}});
    manifest.paths.insert(path);
    entry.done();
  }
}

Target target_of(Fields fields, const Manifest& manifest) {
  Target target;
  target.name = fields.text("name");
  target.state = fields.text("state");
  const auto files = fields.texts("files");
  target.details = &fields.mapping("details");
  for (const std::string& path : files) {
    if (!manifest.lists(path))
      throw fields.fail("files", "a list of paths that the field files has too", path);
    target.files.push_back(path);
  }
  fields.done();
  return target;
}

void read_source(Fields fields) {
  fields.text("name");
  const auto sha256 = fields.optional_text("sha256");
  fields.text("format");
  if (sha256 && !is_sha256(*sha256)) throw fields.fail("sha256", std::string(kHex) + " or null", *sha256);
  fields.done();
}

std::map<std::string, std::string> read_texts(Fields& fields, const std::string& name) {
  std::map<std::string, std::string> found;
  if (!fields.peek(name)) return found;
  const Json& texts = fields.mapping(name);
  for (std::size_t i = 0; i < texts.items.size(); ++i) {
    if (texts.items[i].kind != Json::Kind::text) throw fields.fail(name, "an object of texts", texts.items[i]);
    found[texts.names[i]] = texts.items[i].text;
  }
  return found;
}

// What nobody reads in order to run a bundle (SPARE in manifest.py).
bool is_spare(const std::string& path) {
  for (const char* name : {"golden.safetensors", "model.pt2", "card.md", "README.md"})
    if (path == name) return true;
  return path.rfind("reports/", 0) == 0;
}

bool is_gone(const std::string& folder, const std::string& path) {
  struct stat found;
  return stat((fs::path(folder) / path).c_str(), &found) != 0 && errno == ENOENT;
}

// Takes what is spare and not there out of what is listed, as if the bundle had been exported without it.
void forget_missing(Manifest& manifest, const std::string& folder) {
  const auto gone = [&](const auto& file) { return is_spare(file.first) && is_gone(folder, file.first); };
  for (const auto& file : manifest.files)
    if (gone(file)) manifest.paths.erase(file.first);
  const auto unlisted = [&](const auto& file) { return !manifest.lists(file.first); };
  auto& files = manifest.files;
  files.erase(std::remove_if(files.begin(), files.end(), unlisted), files.end());
}

// tokenizer_entry.py says what it holds.
TokenizerEntry read_tokenizer(Fields& top, const Manifest& manifest) {
  TokenizerEntry entry;
  const Json* value = top.peek("tokenizer");
  if (!value || value->kind == Json::Kind::null) {
    if (value) top.take("tokenizer");
    return entry;
  }
  Fields fields = top.inner("tokenizer");
  const auto listed = [&](const char* name, const std::optional<std::string>& path) {
    if (path && manifest.lists(*path)) return;
    const char* expected = "a path that the field files has too";
    throw path ? fields.fail(name, expected, *path) : fields.fail(name, expected, Json());
  };
  entry.kind = fields.choice("kind", {"bytes", "tokenizer.json", "ids"});
  const auto file = fields.optional_text("file");
  if (entry.kind == "tokenizer.json")
    listed("file", file);
  else if (file)
    throw fields.fail("file", "null for the kind " + entry.kind, *file);
  entry.file = file.value_or("");
  if (const auto chat = fields.optional_text("chat_template")) {
    listed("chat_template", chat);
    entry.chat_template = *chat;
  }
  if (fields.peek("eos"))
    for (const Json& id : fields.listed("eos")) {
      entry.eos.emplace_back();
      if (!id.as_int64(entry.eos.back()) || entry.eos.back() < 0) throw fields.fail("eos", "a list of ids", id);
    }
  if (const Json* bos = fields.peek("bos")) bos->kind == Json::Kind::null ? void(fields.take("bos")) : void(fields.integer("bos"));
  entry.special_tokens = read_texts(fields, "special_tokens");
  if (fields.peek("defaults")) {
    Fields inner = fields.inner("defaults");
    for (const std::string& name : inner.names())
      if (name == "top_k" || name == "max_new_tokens")
        entry.defaults[name] = static_cast<double>(inner.integer(name));
      else if (name == "temperature" || name == "top_p" || name == "min_p" || name == "repetition_penalty")
        entry.defaults[name] = inner.number(name);
    inner.done();
  }
  entry.sources = read_texts(fields, "sources");
  fields.done();
  return entry;
}

}  // namespace

bool is_time(const std::string& text) {
  const std::string form = "dddd-dd-ddTdd:dd:dd+00:00";
  if (text.size() != form.size()) return false;
  for (std::size_t i = 0; i < form.size(); ++i)
    if (form[i] == 'd' ? text[i] < '0' || text[i] > '9' : text[i] != form[i]) return false;
  const auto at = [&](std::size_t i) { return 10 * (text[i] - '0') + text[i + 1] - '0'; };
  return at(5) >= 1 && at(5) <= 12 && at(8) >= 1 && at(8) <= 31 && at(11) <= 23 && at(14) <= 59 && at(17) <= 59;
}

std::string Manifest::file_ending(const std::string& suffix, const std::string& prefer) const {
  if (lists(prefer)) return prefer;
  std::string found;
  int count = 0;
  for (const auto& [path, entry] : files)
    if (path.size() >= suffix.size() && path.compare(path.size() - suffix.size(), suffix.size(), suffix) == 0) {
      found = path;
      ++count;
    }
  return count == 1 ? found : "";
}

Manifest parse_manifest(std::string_view text, const std::string& where) {
  Manifest manifest;
  manifest.document = std::make_shared<const Json>(parse_json(text, where));
  Fields top(*manifest.document, where);
  const std::int64_t version = top.integer("format_version");
  if (version != kFormatVersion)
    throw BundleError(where + " has format version " + std::to_string(version) + ", this runtime knows version " +
                      std::to_string(kFormatVersion) + ": " +
                      (version > kFormatVersion ? "update mythos_runtime" : "export the model again"));
  read_files(top, manifest);
  const std::string created = top.text("created");
  if (!is_time(created)) throw top.fail("created", "a UTC time as 2026-01-01T00:00:00+00:00", created);
  if (top.choice("precision", {"fp32", "fp16", "bf16", "int8", "int4", "int8a8", "int4a8", "fp8", "mixed"}) ==
      "mixed") {
    Fields formats = top.inner("formats");
    for (const auto& group : formats.names()) formats.choice(group, {"int8", "int4"});
  }
  manifest.spec = std::make_shared<const LoopSpec>(read_spec(top.inner("spec")));
  top.mapping("config");
  read_source(top.inner("source"));
  top.each("targets", [&](Fields item) { manifest.targets.push_back(target_of(std::move(item), manifest)); });
  top.mapping("operators");
  top.mapping("tolerances");
  manifest.tokenizer = read_tokenizer(top, manifest);
  if (top.peek("shards") && top.take("shards").kind != Json::Kind::null)
    throw BundleError(where + ": the experts of this bundle are in shards, a process each, which the Python runtime "
                      "runs (mythos run, mythos serve); for this one, export it without --expert-shards");
  manifest.links = read_links(top);
  Fields versions = top.inner("tool_versions");
  for (const auto& tool : versions.names()) versions.text(tool);
  top.done();
  return manifest;
}

Manifest read_manifest(const std::string& folder, bool verify_hashes) {
  const std::string path = plain_path(folder + "/" + kManifest);
  // 0 where there is nothing; what cannot be looked at is an error.
  const auto mode_of = [&](const std::string& place) {
    struct stat found;
    if (stat(place.c_str(), &found) == 0) return found.st_mode;
    if (errno == ENOENT || errno == ENOTDIR) return mode_t{0};
    throw BundleError("cannot read " + path + ": " + os_error(errno, place));
  };
  const mode_t mode = mode_of(plain_path(folder));
  if (!S_ISDIR(mode))
    throw BundleError(folder + (mode ? " is a file" : " does not exist") +
                      "; expected the folder of a bundle, which holds a " + kManifest);
  if (!S_ISREG(mode_of(path)))
    throw BundleError(folder + " holds no " + kManifest + ", so it is not a bundle; make one with mythos-export");
  locate(folder, kManifest);  // no link that leaves the folder
  std::error_code error;
  std::string text(std::min<std::uintmax_t>(fs::file_size(path, error), kMaxJsonBytes + 1), '\0');
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> stream(std::fopen(path.c_str(), "rb"), std::fclose);
  if (!stream) throw BundleError("cannot read " + path + ": " + os_error(errno, path));
  text.resize(std::fread(text.data(), 1, text.size(), stream.get()));
  if (text.size() > kMaxJsonBytes)
    throw BundleError(path + " is larger than the " + std::to_string(kMaxJsonBytes) + " bytes that a manifest may have");
  Manifest manifest = parse_manifest(text, path);
  forget_missing(manifest, folder);
  for (const auto& [name, entry] : manifest.files) check_file(folder, name, entry, false);  // cheap, so all of them first
  if (verify_hashes)
    for (const auto& [name, entry] : manifest.files) check_file(folder, name, entry, true);
  return manifest;
}

}  // namespace mythos
