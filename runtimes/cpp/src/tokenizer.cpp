// Bytes are text: ids 0 to 255 are the bytes of UTF-8, larger ids are no text (tokenizer.py).
#include <utility>

#include "session.hpp"
#include "text.hpp"

namespace mythos {
namespace {

// Python's incremental UTF-8 decoder with errors="replace": one U+FFFD for the longest start of a character.
class Decoder : public Tokenizer::Stream {
 public:
  std::string feed(std::int64_t id) override {
    if (id < 0 || id > 255) return "";
    const auto byte = static_cast<unsigned char>(id);
    if (!need_) return start(byte);
    if (byte < low_ || byte > high_) {
      need_ = 0;
      return kReplacement + start(byte);
    }
    low_ = 0x80, high_ = 0xBF;
    held_ += static_cast<char>(byte);
    return --need_ ? "" : std::move(held_);
  }
  std::string finish() override { return std::exchange(need_, 0) ? kReplacement : ""; }

 private:
  inline static const std::string kReplacement = "\xEF\xBF\xBD";
  std::string start(unsigned char byte) {
    if (byte < 0x80) return std::string(1, static_cast<char>(byte));
    if (byte < 0xC2 || byte > 0xF4) return kReplacement;
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
  std::vector<std::int64_t> encode(const std::string& text, bool) const override {
    check_utf8(text);
    std::vector<std::int64_t> ids;
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
    return ids;
  }
  std::string decode(const std::vector<std::int64_t>& ids) const override {
    Decoder decoder;
    std::string text;
    for (const std::int64_t id : ids) text += decoder.feed(id);
    return text + decoder.finish();
  }
  std::unique_ptr<Stream> stream() const override { return std::make_unique<Decoder>(); }
};

}  // namespace

std::unique_ptr<Tokenizer> make_byte_tokenizer(std::int64_t vocab_size) {
  if (vocab_size < 256)
    throw BundleError("the byte tokenizer needs a vocabulary of at least 256 ids, this model has " +
                      std::to_string(vocab_size));
  return std::make_unique<ByteTokenizer>();
}

}  // namespace mythos
