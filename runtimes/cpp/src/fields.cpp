#include "fields.hpp"

#include <cmath>
#include <cstdlib>

#include "text.hpp"

namespace mythos {

Fields::Fields(const Json& value, std::string where, std::string prefix)
    : value_(&value), where_(std::move(where)), prefix_(std::move(prefix)), taken_(value.items.size(), false) {
  if (value.kind != Json::Kind::object) {
    const std::string at = prefix_.empty() ? "the file" : "the field " + prefix_;
    throw BundleError(where_ + ": " + at + " should be an object, found " + kind_in_words(value) + " (" + shown(value) +
                      ")");
  }
}

std::string Fields::name(const std::string& field) const {
  if (!is_identifier(field)) return prefix_ + "[" + shorten(py_repr(field, true)) + "]";
  return prefix_.empty() ? field : prefix_ + "." + field;
}

BundleError Fields::fail(const std::string& field, const std::string& expected, const Json& value) const {
  return BundleError(where_ + ": the field " + name(field) + " should be " + expected + ", found " + shown(value));
}

BundleError Fields::fail(const std::string& field, const std::string& expected, const std::string& value) const {
  return BundleError(where_ + ": the field " + name(field) + " should be " + expected + ", found " +
                     shorten(py_repr(value, true)));
}

const Json& Fields::take(const std::string& field) {
  const Json* value = peek(field);
  if (!value) throw BundleError(where_ + ": the field " + name(field) + " is missing");
  taken_[static_cast<std::size_t>(value - value_->items.data())] = true;
  while (first_ < taken_.size() && taken_[first_]) ++first_;
  return *value;
}

const Json* Fields::peek(const std::string& field) const {
  for (std::size_t i = first_; i < taken_.size(); ++i)
    if (!taken_[i] && value_->names[i] == field) return &value_->items[i];
  return nullptr;
}

std::vector<std::string> Fields::names() const {
  std::vector<std::string> found;
  for (std::size_t i = 0; i < taken_.size(); ++i)
    if (!taken_[i]) found.push_back(value_->names[i]);
  return found;
}

std::string Fields::text(const std::string& field) {
  const Json& value = take(field);
  if (value.kind != Json::Kind::text || value.text.empty()) throw fail(field, "non-empty text", value);
  if (!is_printable(value.text)) throw fail(field, "printable text on one line", value);
  return value.text;
}

std::optional<std::string> Fields::optional_text(const std::string& field) {
  const Json* value = peek(field);
  if (value && value->kind != Json::Kind::null) return text(field);
  if (value) take(field);
  return std::nullopt;
}

std::int64_t Fields::integer(const std::string& field, std::int64_t least, std::int64_t most) {
  const Json& value = take(field);
  std::int64_t number = 0;
  if (!value.as_int64(number) || number < least || number > most)
    throw fail(field, "an integer from " + std::to_string(least) + " to " + std::to_string(most), value);
  return number;
}

double Fields::number(const std::string& field) {
  const Json& value = take(field);
  if (value.kind != Json::Kind::integer && value.kind != Json::Kind::number) throw fail(field, "a number", value);
  const double number = value.kind == Json::Kind::number ? value.number : std::strtod(value.digits.c_str(), nullptr);
  if (std::isinf(number)) throw fail(field, "a finite number", value);
  return number;
}

std::optional<double> Fields::optional_number(const std::string& field) {
  const Json* value = peek(field);
  if (value && value->kind != Json::Kind::null) return number(field);
  if (value) take(field);
  return std::nullopt;
}

bool Fields::boolean(const std::string& field) {
  const Json& value = take(field);
  if (value.kind != Json::Kind::boolean) throw fail(field, "true or false", value);
  return value.boolean;
}

std::string Fields::choice(const std::string& field, const std::vector<std::string>& choices) {
  const Json& value = take(field);
  std::string all;
  for (const std::string& choice : choices) {
    if (value.kind == Json::Kind::text && value.text == choice) return choice;
    all += (all.empty() ? "" : ", ") + choice;
  }
  throw fail(field, "one of " + all, value);
}

const std::vector<Json>& Fields::listed(const std::string& field) {
  const Json& value = take(field);
  if (value.kind != Json::Kind::list) throw fail(field, "a list", value);
  return value.items;
}

std::vector<std::string> Fields::texts(const std::string& field) {
  const std::vector<Json>& values = listed(field);
  std::vector<std::string> found;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (values[i].kind != Json::Kind::text || values[i].text.empty() || !is_printable(values[i].text))
      throw fail(field, "a list of printable texts (item " + std::to_string(i) + ")", values[i]);
    found.push_back(values[i].text);
  }
  return found;
}

const Json& Fields::mapping(const std::string& field) {
  const Json& value = take(field);
  if (value.kind != Json::Kind::object) throw fail(field, "an object", value);
  return value;
}

Fields Fields::inner(const std::string& field) { return Fields(take(field), where_, name(field)); }

void Fields::each(const std::string& field, const std::function<void(Fields)>& read) {
  const std::string list = name(field);
  const std::vector<Json>& values = listed(field);
  for (std::size_t i = 0; i < values.size(); ++i) read(Fields(values[i], where_, list + "[" + std::to_string(i) + "]"));
}

void Fields::done() const {
  for (const auto& field : names())
    throw BundleError(where_ + ": the field " + name(field) + " is unknown to this version of the format");
}

}  // namespace mythos
