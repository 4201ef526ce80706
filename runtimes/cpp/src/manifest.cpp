#include "manifest.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <regex>
#include <system_error>

#include "fields.hpp"

namespace mythos {
namespace fs = std::filesystem;
namespace {

constexpr std::int64_t kFormatVersion = 1;
const char* const kManifest = "manifest.json";
const char* const kHex = "64 lower-case hexadecimal digits";

bool is_sha256(std::u32string_view text) {
  return text.size() == 64 && std::all_of(text.begin(), text.end(), [](char32_t c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

Port port_of(Fields fields) {
  Port port;
  port.name = to_utf8(fields.text(U"name"));
  port.dtype = fields.choice(U"dtype", {"bool", "int32", "int64", "float16", "bfloat16", "float32"});
  fields.text(U"role");
  for (const Json& dim : fields.listed(U"dims")) {
    std::int64_t size = 0;
    if (dim.as_int64(size) && size >= 0)
      port.dims.push_back({size, ""});
    else if (dim.kind == Json::Kind::text && is_identifier(dim.text))
      port.dims.push_back({0, to_utf8(dim.text)});
    else
      throw fields.fail(U"dims", "a list of sizes and symbols", dim);
  }
  fields.done();
  return port;
}

Ports ports_of(Fields fields) {
  Ports ports;
  fields.each(U"inputs", [&](Fields item) { ports.inputs.push_back(port_of(std::move(item))); });
  fields.each(U"outputs", [&](Fields item) { ports.outputs.push_back(port_of(std::move(item))); });
  fields.done();
  return ports;
}

void read_files(Fields& top, Manifest& manifest) {
  Fields listed = top.inner(U"files");
  for (const std::u32string& path : listed.names()) {
    const char* problem = path_problem(path);
    if (problem || path == U"manifest.json")
      throw listed.fail(path, "left out, as its path may not be listed (" +
                                  std::string(problem ? problem : "the manifest itself") + ")", path);
    Fields entry = listed.inner(path);
    const std::u32string sha256 = entry.text(U"sha256");
    if (!is_sha256(sha256)) throw entry.fail(U"sha256", kHex, sha256);
    manifest.files.push_back({to_utf8(path), {to_utf8(sha256), entry.integer(U"bytes")}});
    entry.done();
  }
}

Target target_of(Fields fields, const Manifest& manifest) {
  Target target;
  target.name = to_utf8(fields.text(U"name"));
  target.state = to_utf8(fields.text(U"state"));
  const auto files = fields.texts(U"files");
  target.details = &fields.mapping(U"details");
  for (const std::u32string& path : files) {
    if (!manifest.lists(to_utf8(path)))
      throw fields.fail(U"files", "a list of paths that the field files has too", path);
    target.files.push_back(to_utf8(path));
  }
  fields.done();
  return target;
}

void read_source(Fields fields) {
  fields.text(U"name");
  const auto sha256 = fields.optional_text(U"sha256");
  fields.text(U"format");
  if (sha256 && !is_sha256(*sha256)) throw fields.fail(U"sha256", std::string(kHex) + " or null", *sha256);
  fields.done();
}

void read_tokenizer(Fields& top, Manifest& manifest) {
  const Json* value = top.peek(U"tokenizer");
  if (!value || value->kind == Json::Kind::null) {
    if (value) top.take(U"tokenizer");
    return;
  }
  Fields fields = top.inner(U"tokenizer");
  TokenizerEntry entry;
  entry.kind = fields.choice(U"kind", {"bytes", "tokenizer.json"});
  const auto file = fields.optional_text(U"file");
  if (entry.kind == "bytes" && file) throw fields.fail(U"file", "null for the kind bytes", *file);
  if (entry.kind == "tokenizer.json" && !(file && manifest.lists(to_utf8(*file))))
    throw file ? fields.fail(U"file", "a path that the field files has too", *file)
               : fields.fail(U"file", "a path that the field files has too", Json());
  if (file) entry.file = to_utf8(*file);
  fields.done();
  manifest.tokenizer = entry;
}

}  // namespace

bool is_time(const std::string& text) {
  static const std::regex form(
      "[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\\+00:00");
  return text.size() == 25 && std::regex_match(text, form);
}

bool Manifest::lists(const std::string& path) const {
  return std::any_of(files.begin(), files.end(), [&](const auto& file) { return file.first == path; });
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
  const std::int64_t version = top.integer(U"format_version");
  if (version != kFormatVersion)
    throw BundleError(where + " has format version " + std::to_string(version) + ", this runtime knows version " +
                      std::to_string(kFormatVersion) + ": " +
                      (version > kFormatVersion ? "update mythos_runtime" : "export the model again"));
  read_files(top, manifest);
  const std::u32string created = top.text(U"created");
  if (!is_time(to_utf8(created))) throw top.fail(U"created", "a UTC time as 2026-01-01T00:00:00+00:00", created);
  top.choice(U"precision", {"fp32", "fp16", "bf16", "int8", "int4"});
  manifest.config = &top.mapping(U"config");
  read_source(top.inner(U"source"));
  manifest.ports = ports_of(top.inner(U"ports"));
  top.each(U"targets", [&](Fields item) { manifest.targets.push_back(target_of(std::move(item), manifest)); });
  top.mapping(U"operators");
  top.mapping(U"tolerances");
  read_tokenizer(top, manifest);
  Fields versions = top.inner(U"tool_versions");
  for (const auto& tool : versions.names()) versions.text(tool);
  top.done();
  return manifest;
}

Manifest read_manifest(const std::string& folder, bool verify_hashes) {
  const std::string path = plain_path(folder + "/" + kManifest);
  std::error_code error;
  if (!fs::is_directory(folder, error))
    throw BundleError(folder + (fs::exists(folder, error) ? " is a file" : " does not exist") +
                      "; expected the folder of a bundle, which holds a " + kManifest);
  if (!fs::is_regular_file(path, error))
    throw BundleError(folder + " holds no " + kManifest + ", so it is not a bundle; make one with mythos-export");
  std::string text(std::min<std::uintmax_t>(fs::file_size(path, error), kMaxJsonBytes + 1), '\0');
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> stream(std::fopen(path.c_str(), "rb"), std::fclose);
  if (!stream) throw BundleError("cannot read " + path + ": " + os_error(errno, path));
  text.resize(std::fread(text.data(), 1, text.size(), stream.get()));
  if (text.size() > kMaxJsonBytes)
    throw BundleError(path + " is larger than the " + std::to_string(kMaxJsonBytes) + " bytes that a manifest may have");
  Manifest manifest = parse_manifest(text, path);
  for (const auto& [name, entry] : manifest.files) check_file(folder, name, entry, false);  // cheap, so all of them first
  if (verify_hashes)
    for (const auto& [name, entry] : manifest.files) check_file(folder, name, entry, true);
  return manifest;
}

}  // namespace mythos
