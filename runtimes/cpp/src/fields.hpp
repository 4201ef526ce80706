// Strict reading of parsed JSON: every value is asked for by name and type, and nothing is left over (fields.py).
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "errors.hpp"
#include "json.hpp"

namespace mythos {

constexpr std::int64_t kMaxInteger = INT64_MAX;

class Fields {
 public:
  // `where` names the file, `prefix` the object in it ("" at the top). The value must outlive this.
  Fields(const Json& value, std::string where, std::string prefix = "");

  std::string name(std::u32string_view field) const;
  BundleError fail(std::u32string_view field, const std::string& expected, const Json& value) const;
  BundleError fail(std::u32string_view field, const std::string& expected, std::u32string_view value) const;
  const Json& take(std::u32string_view field);
  const Json* peek(std::u32string_view field) const;  // null where absent
  std::vector<std::u32string> names() const;          // not read yet, in the file's order
  std::u32string text(std::u32string_view field);
  std::optional<std::u32string> optional_text(std::u32string_view field);
  std::int64_t integer(std::u32string_view field, std::int64_t least = 0, std::int64_t most = kMaxInteger);
  double number(std::u32string_view field);
  std::string choice(std::u32string_view field, const std::vector<std::string>& choices);
  const std::vector<Json>& listed(std::u32string_view field);
  std::vector<std::u32string> texts(std::u32string_view field);
  const Json& mapping(std::u32string_view field);
  Fields inner(std::u32string_view field);
  // The objects of a list, one by one: what is wrong with a later one shows only when its turn comes.
  void each(std::u32string_view field, const std::function<void(Fields)>& read);
  void done() const;

 private:
  const Json* value_;
  std::string where_, prefix_;
  std::vector<bool> taken_;
};

}  // namespace mythos
