// An engine over a bundle's row graphs (opening.py).
#pragma once

#include "engine/engine.hpp"
#include "engine/ort_device.hpp"
#include "manifest.hpp"

namespace mythos {

namespace engine {

// Whether the manifest lists the row graphs; `open_graphs` says what is lacking.
bool has_row_graphs(const Manifest& manifest);
// The sessions of the row graphs; where they run on a device, those of them on lines, and of the graphs that move lines.
struct OpenRows {
  OpenGraph graph;
  OpenLines lines;
};
// Opened when first asked for: on the CPU, or in the CUDA provider where the bundle's kernels are asked for there
// (BundleError where there are none, or their ports are not the spec's).
OpenRows open_rows(const std::string& folder, const Manifest& manifest, const LoadOptions& load);
// A core of fixed memory, and one whose memory grows with what is reserved (`Core::reserve`).
std::unique_ptr<Core> make_core(std::shared_ptr<const LoopSpec> spec, const OpenRows& open, const EngineOptions& options);
std::unique_ptr<Core> growing_core(std::shared_ptr<const LoopSpec> spec, const OpenRows& open);

}  // namespace engine
}  // namespace mythos
