// Bytes are text: ids 0 to 255 are the bytes of UTF-8, larger ids are no text (tokenizer.py).
//
// A tokenizer.json has no reader here: the library that defines the format (Hugging Face tokenizers) is Rust, and neither
// Debian nor pip ships it, or a maintained equivalent, with a C or C++ interface. Ids go in and out instead.
#include "json.hpp"
#include "session.hpp"

namespace mythos {
namespace {

// Python's incremental UTF-8 decoder with errors="replace": one U+FFFD for the longest start of a character.
class Decoder {
 public:
  std::string feed(unsigned char byte) {
    if (!need_) return start(byte);
    if (byte < low_ || byte > high_) {
      need_ = 0;
      return "\xEF\xBF\xBD" + start(byte);
    }
    low_ = 0x80, high_ = 0xBF;
    held_ += static_cast<char>(byte);
    return --need_ ? "" : std::move(held_);
  }
  std::string finish() { return need_ ? "\xEF\xBF\xBD" : ""; }

 private:
  std::string start(unsigned char byte) {
    if (byte < 0x80) return std::string(1, static_cast<char>(byte));
    if (byte < 0xC2 || byte > 0xF4) return "\xEF\xBF\xBD";
    need_ = byte >= 0xF0 ? 3 : byte >= 0xE0 ? 2 : 1;
    low_ = byte == 0xE0 ? 0xA0 : byte == 0xF0 ? 0x90 : 0x80;
    high_ = byte == 0xED ? 0x9F : byte == 0xF4 ? 0x8F : 0xBF;
    held_.assign(1, static_cast<char>(byte));
    return "";
  }
  int need_ = 0;
  unsigned char low_ = 0x80, high_ = 0xBF;
  std::string held_;
};

class ByteTokenizer : public Tokenizer {
 public:
  std::vector<std::int64_t> encode(const std::string& text) const override {
    std::vector<std::int64_t> ids;
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
    return ids;
  }
  std::string decode(const std::vector<std::int64_t>& ids) const override {
    Decoder decoder;
    std::string text;
    for (const std::int64_t id : ids)
      if (id >= 0 && id < 256) text += decoder.feed(static_cast<unsigned char>(id));
    return text + decoder.finish();
  }
  std::function<std::string(std::int64_t)> stream() const override {
    return [decoder = std::make_shared<Decoder>()](std::int64_t id) {
      return id >= 0 && id < 256 ? decoder->feed(static_cast<unsigned char>(id)) : std::string();
    };
  }
};

}  // namespace

std::unique_ptr<Tokenizer> make_byte_tokenizer(std::int64_t vocab_size) {
  if (vocab_size < 256)
    throw BundleError("the byte tokenizer needs a vocabulary of at least 256 ids, this model has " +
                      std::to_string(vocab_size));
  return std::make_unique<ByteTokenizer>();
}

}  // namespace mythos
