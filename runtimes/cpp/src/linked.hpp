// Weights that a bundle does not hold: they are mapped from the user's own checkpoint (linked.py says how, and by what rule).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fields.hpp"

namespace mythos {

struct LinkedFile {
  std::string path, sha256;
  std::int64_t bytes = 0;
};

// Bytes `start` to `start + bytes` of a file, which is counted from 0.
struct Stretch {
  std::int64_t file = 0, start = 0, bytes = 0;
};

struct LinkedTensor {
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::vector<Stretch> stretches;  // one behind the other
  std::int64_t bytes = 0;
};

// What the field `links` of a manifest says.
struct Links {
  std::vector<LinkedFile> files;
  std::map<std::string, LinkedTensor> tensors;
};

// Null where there is none (BundleError).
std::shared_ptr<const Links> read_links(Fields& top);

// The tensors, mapped for reading for as long as this lives.
class Linked {
 public:
  struct Tensor {
    std::string dtype;
    std::vector<std::int64_t> shape;
    void* data = nullptr;
  };

  // See `open_linked`.
  Linked(const std::string& folder, const Links& links, const std::string& given, bool verify_hashes);
  ~Linked();
  Linked(const Linked&) = delete;
  Linked& operator=(const Linked&) = delete;

  const std::map<std::string, Tensor>& tensors() const { return tensors_; }

 private:
  void map(const std::string& folder, const LinkedTensor& tensor, const std::vector<int>& handles, Tensor& out);

  std::map<std::string, Tensor> tensors_;
  std::vector<std::pair<void*, std::size_t>> regions_;
};

// Null without links. `given`: where the user says that the files are, the file or a folder, "" where the manifest's word
// holds; their content is then checked only with `verify_hashes`, that of others always. BundleError: a file is missing, no
// regular file, or not the one that was linked.
std::shared_ptr<const Linked> open_linked(const std::string& folder, const std::shared_ptr<const Links>& links,
                                          const std::string& given, bool verify_hashes);

}  // namespace mythos
