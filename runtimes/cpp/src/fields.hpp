// Strict reading of parsed JSON: every value is asked for by name and type, and nothing is left over (fields.py).
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "mythos_runtime.hpp"
#include "json.hpp"

namespace mythos {

constexpr std::int64_t kMaxInteger = INT64_MAX;

class Fields {
 public:
  // `where` names the file, `prefix` the object in it ("" at the top). The value must outlive this.
  Fields(const Json& value, std::string where, std::string prefix = "");

  const std::string& where() const { return where_; }
  std::string name(const std::string& field) const;
  BundleError fail(const std::string& field, const std::string& expected, const Json& value) const;
  BundleError fail(const std::string& field, const std::string& expected, const std::string& value) const;
  const Json& take(const std::string& field);
  const Json* peek(const std::string& field) const;  // null where absent
  std::vector<std::string> names() const;            // not read yet, in the file's order
  std::string text(const std::string& field);
  std::optional<std::string> optional_text(const std::string& field);
  std::int64_t integer(const std::string& field, std::int64_t least = 0, std::int64_t most = kMaxInteger);
  double number(const std::string& field);
  std::optional<double> optional_number(const std::string& field);
  bool boolean(const std::string& field);
  std::string choice(const std::string& field, const std::vector<std::string>& choices);
  const std::vector<Json>& listed(const std::string& field);
  std::vector<std::string> texts(const std::string& field);
  const Json& mapping(const std::string& field);
  Fields inner(const std::string& field);
  // The objects of a list, one by one: what is wrong with a later one shows only when its turn comes.
  void each(const std::string& field, const std::function<void(Fields)>& read);
  void done() const;

 private:
  const Json* value_;
  std::string where_, prefix_;
  std::vector<bool> taken_;
  std::size_t first_ = 0;  // that is not taken
};

}  // namespace mythos
