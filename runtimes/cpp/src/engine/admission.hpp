// Whether a request can be run at all: what this model can do, and what this memory holds (admission.py).
#pragma once

#include <memory>

#include "engine/core.hpp"
#include "engine/request.hpp"

namespace mythos::engine {

// A request as it runs, with what it leaves open filled in (RequestError: it asks for what this model cannot do;
// CapacityError: its tokens do not fit the model, or all the memory).
std::shared_ptr<Work> admit(Request request, const Core& core, const Budget& usual);
// RequestError where a budget is none, or this model cannot keep it.
void check_budget(const Budget& budget, const LoopSpec& spec);

}  // namespace mythos::engine
