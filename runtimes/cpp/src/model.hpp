#pragma once
#include "cache.hpp"
#include "session.hpp"

namespace mythos {

struct Model::Parts {
  Bundle bundle;
  std::unique_ptr<Session> session;
};

}  // namespace mythos
