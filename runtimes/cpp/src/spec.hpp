// The manifest's field `spec`, and the ports that follow from it (spec.py).
#pragma once

#include "mythos_runtime.hpp"
#include "fields.hpp"

namespace mythos {

// The ports of a whole model; `initial` is the state that is an input, null where none is.
Ports model_ports(std::int64_t vocab_size, const std::vector<CacheGroup>& caches, const ExitRule& exit,
                  const StateTensor* initial);
// How a graph's ports differ from the expected ones, in words; empty where they do not.
std::string contradiction_of(const Ports& expected, const Ports& found);
// What of a spec does not go together, in words; empty where it does.
std::string contradiction_of(const LoopSpec& spec);
// A spec from the manifest's field (BundleError).
LoopSpec read_spec(Fields fields);

}  // namespace mythos
