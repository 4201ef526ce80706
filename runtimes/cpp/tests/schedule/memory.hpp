// Memory of an engine in which all that is nobody's is NaN, so that whoever reads it is found out.
#pragma once

#include <cstdint>
#include <memory>

#include "engine/core.hpp"
#include "spec.hpp"

namespace mythos::engine {

// Pages that are NaN, and become so again when they are freed.
std::unique_ptr<PagedCache> cache_of(const CacheGroup& group, std::int64_t pages, const MakeLines& make);

// NaN in all floats of a line of state.
void poison(States& states, const LoopSpec& spec, std::int64_t line);

// Gives an empty sequence a past of whole pages at the price of one: the same page again and again, whose numbers
// tests/mythos_runtime/engine/row_models.py knows.
void fill_far(Core& core, Sequence& sequence, std::int64_t length);

}  // namespace mythos::engine
