#pragma once
#include "cache.hpp"
#include "engine/opening.hpp"
#include "session.hpp"
#include "tokenizer_json.hpp"

#include <mutex>

namespace mythos {

struct Model::Parts {
  Bundle bundle;
  std::unique_ptr<Session> session;
  engine::OpenRows open_rows;          // of the row graphs, where the bundle has them and they run where the session does
  std::shared_ptr<engine::Pool> pool;  // a core over them, which caches share
  std::mutex opening;                  // it: several threads may make the first cache

  std::map<std::int64_t, std::shared_ptr<engine::Speculation>> learnt;  // what chooses drafts, by what was asked for

  // The pool, opened when first asked for, by any thread; null where there can be none.
  std::shared_ptr<engine::Pool> rows();
  std::shared_ptr<JsonFile> json;  // read when it is first asked for
};

// Of a policy that a model which is one graph does not have.
RequestError whole_model_only(const std::string& policy, const std::string& backend);

}  // namespace mythos
