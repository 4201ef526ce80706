// How deep the positions of a request may go, and how many drafts it takes (depth.py).
#pragma once

#include <cstdint>
#include <optional>

#include "engine/core.hpp"
#include "engine/request.hpp"
#include "engine/speculation.hpp"

namespace mythos::engine {

// The most loops of the position that enters, by the budget, where calls have so many rows.
std::optional<std::int64_t> budgeted_cap(const Work& work, const Speed& speed, std::int64_t rows);
// The caps of positions that enter, and whether they are forced: given depths, and those that a budget has set. Both are set
// again where a request is computed anew.
void set_caps(const Work& work, Chunk& chunk);
// The drafts of the round that begins. `sharing`: sequences in the calls. `room`: the most drafts that fit one.
std::optional<Round> plan_round(const Work& work, Speculation* speculation, std::int64_t sharing, std::int64_t room);

}  // namespace mythos::engine
