#include "fields.hpp"

#include <cmath>
#include <cstdlib>

namespace mythos {

Fields::Fields(const Json& value, std::string where, std::string prefix)
    : value_(&value), where_(std::move(where)), prefix_(std::move(prefix)), taken_(value.items.size(), false) {
  if (value.kind != Json::Kind::object) {
    const std::string at = prefix_.empty() ? "the file" : "the field " + prefix_;
    throw BundleError(where_ + ": " + at + " should be an object, found " + kind_in_words(value) + " (" + shown(value) +
                      ")");
  }
}

std::string Fields::name(std::u32string_view field) const {
  if (!is_identifier(field)) return prefix_ + "[" + shown(field) + "]";
  return prefix_.empty() ? to_utf8(field) : prefix_ + "." + to_utf8(field);
}

BundleError Fields::fail(std::u32string_view field, const std::string& expected, const Json& value) const {
  return BundleError(where_ + ": the field " + name(field) + " should be " + expected + ", found " + shown(value));
}

BundleError Fields::fail(std::u32string_view field, const std::string& expected, std::u32string_view value) const {
  return BundleError(where_ + ": the field " + name(field) + " should be " + expected + ", found " + shown(value));
}

const Json& Fields::take(std::u32string_view field) {
  for (std::size_t i = 0; i < taken_.size(); ++i)
    if (!taken_[i] && value_->names[i] == field) {
      taken_[i] = true;
      return value_->items[i];
    }
  throw BundleError(where_ + ": the field " + name(field) + " is missing");
}

const Json* Fields::peek(std::u32string_view field) const {
  for (std::size_t i = 0; i < taken_.size(); ++i)
    if (!taken_[i] && value_->names[i] == field) return &value_->items[i];
  return nullptr;
}

std::vector<std::u32string> Fields::names() const {
  std::vector<std::u32string> found;
  for (std::size_t i = 0; i < taken_.size(); ++i)
    if (!taken_[i]) found.push_back(value_->names[i]);
  return found;
}

std::u32string Fields::text(std::u32string_view field) {
  const Json& value = take(field);
  if (value.kind != Json::Kind::text || value.text.empty()) throw fail(field, "non-empty text", value);
  if (!is_printable(value.text)) throw fail(field, "printable text on one line", value);
  return value.text;
}

std::optional<std::u32string> Fields::optional_text(std::u32string_view field) {
  const Json* value = peek(field);
  if (value && value->kind != Json::Kind::null) return text(field);
  if (value) take(field);
  return std::nullopt;
}

std::int64_t Fields::integer(std::u32string_view field, std::int64_t least, std::int64_t most) {
  const Json& value = take(field);
  std::int64_t number = 0;
  if (!value.as_int64(number) || number < least || number > most)
    throw fail(field, "an integer from " + std::to_string(least) + " to " + std::to_string(most), value);
  return number;
}

double Fields::number(std::u32string_view field) {
  const Json& value = take(field);
  if (value.kind != Json::Kind::integer && value.kind != Json::Kind::number) throw fail(field, "a number", value);
  const double number = value.kind == Json::Kind::number ? value.number : std::strtod(value.digits.c_str(), nullptr);
  if (std::isinf(number)) throw fail(field, "a finite number", value);
  return number;
}

std::string Fields::choice(std::u32string_view field, const std::vector<std::string>& choices) {
  const Json& value = take(field);
  std::string all;
  for (const std::string& choice : choices) {
    if (value.kind == Json::Kind::text && to_utf8(value.text) == choice) return choice;
    all += (all.empty() ? "" : ", ") + choice;
  }
  throw fail(field, "one of " + all, value);
}

const std::vector<Json>& Fields::listed(std::u32string_view field) {
  const Json& value = take(field);
  if (value.kind != Json::Kind::list) throw fail(field, "a list", value);
  return value.items;
}

std::vector<std::u32string> Fields::texts(std::u32string_view field) {
  const std::vector<Json>& values = listed(field);
  std::vector<std::u32string> found;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (values[i].kind != Json::Kind::text || values[i].text.empty() || !is_printable(values[i].text))
      throw fail(field, "a list of printable texts (item " + std::to_string(i) + ")", values[i]);
    found.push_back(values[i].text);
  }
  return found;
}

const Json& Fields::mapping(std::u32string_view field) {
  const Json& value = take(field);
  if (value.kind != Json::Kind::object) throw fail(field, "an object", value);
  return value;
}

Fields Fields::inner(std::u32string_view field) { return Fields(take(field), where_, name(field)); }

void Fields::each(std::u32string_view field, const std::function<void(Fields)>& read) {
  const std::string list = name(field);
  const std::vector<Json>& values = listed(field);
  for (std::size_t i = 0; i < values.size(); ++i) read(Fields(values[i], where_, list + "[" + std::to_string(i) + "]"));
}

void Fields::done() const {
  for (const auto& field : names())
    throw BundleError(where_ + ": the field " + name(field) + " is unknown to this version of the format");
}

}  // namespace mythos
