// The files of a bundle: where a listed path may be, and whether the file is the one that was listed (files.py).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace mythos {

struct FileEntry {
  std::string sha256;
  std::int64_t bytes = 0;
};

// A path as Python's pathlib would print it.
std::string plain_path(const std::string& path);
// An operating system's error in Python's words: "[Errno 2] No such file or directory: 'x'".
std::string os_error(int code, const std::string& path);
// Why a path may not stand in a manifest; null where it may.
const char* path_problem(std::string_view path);
// The file a manifest lists, inside the bundle and regular (BundleError).
std::filesystem::path locate(const std::string& folder, const std::string& path);
// The SHA-256 of a file, in hexadecimal (std::system_error where it cannot be read).
std::string sha256_of(const std::filesystem::path& file);
void check_file(const std::string& folder, const std::string& path, const FileEntry& entry, bool verify_hash);

}  // namespace mythos
