#pragma once
#include "cache.hpp"
#include "session.hpp"
#include "tokenizer_json.hpp"

namespace mythos {

struct Model::Parts {
  Bundle bundle;
  std::unique_ptr<Session> session;
  std::shared_ptr<JsonFile> json;  // read when it is first asked for
};

}  // namespace mythos
