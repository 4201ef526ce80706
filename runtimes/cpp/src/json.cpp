#include "json.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "mythos_runtime.hpp"
#include "text.hpp"

namespace mythos {
namespace {

// Builds a Json from the parser's events. The parser itself keeps no tree and does not recurse.
class Builder : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit Builder(const std::string& where) : where_(where) {}

  Json root;

  bool null() override { return add({}); }
  bool boolean(bool value) override {
    Json json;
    json.kind = Json::Kind::boolean;
    json.boolean = value;
    return add(std::move(json));
  }
  bool number_integer(number_integer_t value) override { return integer(std::to_string(value)); }
  bool number_unsigned(number_unsigned_t value) override { return integer(std::to_string(value)); }
  bool number_float(number_float_t value, const string_t& digits) override {
    if (digits.find_first_of(".eE") == digits.npos) return integer(digits);  // one that 64 bits do not hold
    Json json;
    json.kind = Json::Kind::number;
    json.number = value;
    return add(std::move(json));
  }
  bool string(string_t& value) override {
    Json json;
    json.kind = Json::Kind::text;
    json.text = std::move(value);
    return add(std::move(json));
  }
  bool binary(binary_t&) override { return false; }  // JSON has none
  bool start_object(std::size_t) override { return open(Json::Kind::object); }
  bool start_array(std::size_t) override { return open(Json::Kind::list); }
  bool key(string_t& name) override {
    open_.back()->names.push_back(std::move(name));
    return true;
  }
  bool end_array() override {
    open_.pop_back();
    return true;
  }
  bool end_object() override {
    const auto& names = open_.back()->names;
    std::vector<std::string_view> sorted(names.begin(), names.end());
    std::sort(sorted.begin(), sorted.end());
    if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end())
      for (const std::string& name : names)
        if (const auto [first, last] = std::equal_range(sorted.begin(), sorted.end(), std::string_view(name));
            last - first > 1)
          throw BundleError(where_ + " repeats the field " + shorten(py_repr(name, true)) + " in one object");
    return end_array();
  }
  bool parse_error(std::size_t, const std::string& token, const nlohmann::json::exception& error) override {
    constexpr int kTooLarge = 406;
    if (error.id == kTooLarge)
      throw BundleError(where_ + " holds " + token.substr(0, 30) + ", which is too large for a number");
    std::string text = error.what();
    text = text.substr(0, text.find("; last read"));  // may hold bytes that are no text
    throw BundleError(where_ + " is not valid JSON: " + text.substr(text.find("] ") + 2, 200));
  }

 private:
  bool integer(std::string digits) {
    Json json;
    json.kind = Json::Kind::integer;
    json.digits = std::move(digits);
    return add(std::move(json));
  }
  bool open(Json::Kind kind) {
    Json json;
    json.kind = kind;
    add(std::move(json));
    open_.push_back(open_.empty() ? &root : &open_.back()->items.back());
    return true;
  }
  bool add(Json json) {
    if (open_.size() >= kMaxJsonDepth)
      throw BundleError(where_ + " nests deeper than " + std::to_string(kMaxJsonDepth) + " levels");
    if (open_.empty())
      root = std::move(json);
    else
      open_.back()->items.push_back(std::move(json));
    return true;
  }

  const std::string& where_;
  std::vector<Json*> open_;  // each the last item of the one before, which therefore does not grow meanwhile
};

// Appends ascii(value), but stops soon after more than what is shown: a value may be megabytes long.
void append_ascii(std::string& out, const Json& value) {
  if (out.size() > kShown) return;
  switch (value.kind) {
    case Json::Kind::null: out += "None"; return;
    case Json::Kind::boolean: out += value.boolean ? "True" : "False"; return;
    case Json::Kind::integer: out += value.digits; return;
    case Json::Kind::number: out += py_repr(value.number); return;
    case Json::Kind::text: out += py_repr(value.text, true); return;
    case Json::Kind::list:
    case Json::Kind::object: break;
  }
  const bool object = value.kind == Json::Kind::object;
  out += object ? '{' : '[';
  for (std::size_t i = 0; i < value.items.size() && out.size() <= kShown; ++i) {
    if (i) out += ", ";
    if (object) out += py_repr(value.names[i], true) + ": ";
    append_ascii(out, value.items[i]);
  }
  out += object ? '}' : ']';
}

}  // namespace

bool Json::as_int64(std::int64_t& value) const {
  errno = 0;
  value = std::strtoll(digits.c_str(), nullptr, 10);
  return kind == Kind::integer && errno == 0;
}

Json parse_json(std::string_view bytes, const std::string& where) {
  if (bytes.size() > kMaxJsonBytes)
    throw BundleError(where + " has " + std::to_string(bytes.size()) + " bytes, more than the " +
                      std::to_string(kMaxJsonBytes) + " that a manifest may have");
  if (bytes.find('\0') != bytes.npos)  // where the parser would stop, as at the end of a C string
    throw BundleError(where + " is not valid JSON: it holds a zero byte");
  Builder builder(where);
  nlohmann::json::sax_parse(bytes, &builder);
  return std::move(builder.root);
}

std::string shown(const Json& value) {
  std::string text;
  append_ascii(text, value);
  return shorten(text);
}

std::string kind_in_words(const Json& value) {
  switch (value.kind) {
    case Json::Kind::null: return "null";
    case Json::Kind::boolean: return "a boolean";
    case Json::Kind::integer: return "an integer";
    case Json::Kind::number: return "a number";
    case Json::Kind::text: return "text";
    case Json::Kind::list: return "a list";
    case Json::Kind::object: return "an object";
  }
  return "null";
}

}  // namespace mythos
