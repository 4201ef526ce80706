#pragma once
#include "cache.hpp"
#include "engine/opening.hpp"
#include "session.hpp"
#include "tokenizer_json.hpp"

namespace mythos {

struct Model::Parts {
  Bundle bundle;
  std::unique_ptr<Session> session;
  engine::OpenGraph open_graph;        // of the row graphs, where the bundle has them and they run where the session does
  std::unique_ptr<engine::Core> core;  // over them

  std::map<std::int64_t, std::unique_ptr<engine::Speculation>> learnt;  // what chooses drafts, by what was asked for

  // The core, opened when first asked for; null where there can be none.
  engine::Core* rows();
  std::shared_ptr<JsonFile> json;  // read when it is first asked for
};

}  // namespace mythos
