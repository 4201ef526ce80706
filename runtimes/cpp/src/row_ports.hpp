// The ports of the three row graphs: the model's step by itself, for an engine that decides which rows run it
// (row_ports.py). And of the step in a Loop, for rows that stay together for several loops.
#pragma once

#include <map>
#include <string>

#include "mythos_spec.hpp"

namespace mythos {

inline constexpr const char *kEnter = "enter", *kStep = "step", *kLeave = "leave", *kLoops = "loops";
constexpr std::int64_t kPage = 32;        // positions of a page
constexpr std::int64_t kMostLoops = 256;  // loops that a row can run

// By graph, of a model whose other fields are the spec's.
// RequestError: it has no state, answer or cache that rows could carry; the text says which.
std::map<std::string, Ports> row_ports(const LoopSpec& spec);
// Of the step in a Loop: as those of the step, with the loops that a call may run and those that it ran, which rows end it,
// knobs of each loop [L, R], and tables of each [T, K], as many as there are spans, loop after loop.
Ports loop_ports(const Ports& step);
// What the spec's row graphs say otherwise than its sizes; empty where nothing. Rows are copied by the one into buffers
// of the other.
std::string row_contradiction(const LoopSpec& spec);

}  // namespace mythos
