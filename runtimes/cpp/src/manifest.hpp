// The bundle's manifest (manifest.py says what it holds).
#pragma once

#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "files.hpp"
#include "json.hpp"
#include "linked.hpp"
#include "mythos_runtime.hpp"

namespace mythos {

struct Target {
  std::string name, state;
  std::vector<std::string> files;
  const Json* details = nullptr;  // is in the manifest's document
};

struct Manifest {
  std::shared_ptr<const Json> document;  // what the details point into
  std::shared_ptr<const LoopSpec> spec;
  std::vector<Target> targets;
  std::vector<std::pair<std::string, FileEntry>> files;  // in the file's order
  TokenizerEntry tokenizer;
  std::shared_ptr<const Links> links;  // null where all weights are in the bundle

  std::set<std::string> paths;  // of `files`

  bool lists(const std::string& path) const { return paths.count(path) > 0; }
  // The listed file `prefer`, or the only one that ends in `suffix`; empty where there is none.
  std::string file_ending(const std::string& suffix, const std::string& prefer) const;
};

// A manifest from its JSON text, without looking at any file (BundleError).
Manifest parse_manifest(std::string_view text, const std::string& where = "manifest.json");
// Reads and checks a bundle's manifest and the files it lists (BundleError).
Manifest read_manifest(const std::string& folder, bool verify_hashes);

// A UTC time as 2026-01-01T00:00:00+00:00.
bool is_time(const std::string& text);

}  // namespace mythos
