#include "engine/request.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "text.hpp"

namespace mythos::engine {
namespace {

constexpr std::array<std::pair<const char*, Policy>, 3> kPolicies{
    {{"lazy", Policy::lazy}, {"full", Policy::full}, {"share", Policy::share}}};

template <typename Value>
void append(std::string& bytes, const Value& value) {
  char raw[sizeof value];
  std::memcpy(raw, &value, sizeof value);
  bytes.append(raw, sizeof value);
}

}  // namespace

Policy policy_of(const std::string& name) {
  for (const auto& [each, policy] : kPolicies)
    if (name == each) return policy;
  throw RequestError("there is no cache policy " + py_repr(name) + "; the policies are lazy, full, share");
}

Work::Work(Request given, std::int64_t vocab_size)
    : sampler(given.sampling, given.row, vocab_size, given.prompt), policy(policy_of(given.policy)) {
  request = std::move(given);
}

std::int64_t Work::left() const {
  const std::size_t drafts = round ? round->drafts.size() : 0;
  return static_cast<std::int64_t>(request.prompt.size() + tokens.size() + drafts) - fed;
}

std::vector<std::int64_t> Work::next(std::int64_t most) const {
  std::vector<std::int64_t> ids;
  auto at = static_cast<std::size_t>(fed);
  const std::size_t prompt = request.prompt.size(), known = prompt + tokens.size();
  for (std::int64_t count = std::min(most, left()); count > 0; --count, ++at)
    ids.push_back(at < prompt ? request.prompt[at] : at < known ? tokens[at - prompt] : round->drafts[at - known]);
  return ids;
}

std::string Work::kind() const {
  std::string kind;
  append(kind, limit);
  append(kind, threshold);
  append(kind, policy);
  append(kind, request.state_seed);
  return kind;
}

}  // namespace mythos::engine
