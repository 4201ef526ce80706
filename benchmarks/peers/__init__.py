"""Other ways to run the same weights, one file each, with the methods of `mythos_export.bench.backends.backend`.

    python -m benchmarks.peers            # the whole comparison for both models, into benchmarks/results/peers

Every peer is given one thread like everybody, static shapes, its own best settings of those that its file names, and
time to compile before the clock runs. A peer that is not installed is listed with the reason.
"""

from __future__ import annotations

PEERS = (
    "benchmarks.peers.reference:Reference",
    "benchmarks.peers.torch_compile:TorchCompile",
    "benchmarks.peers.aot_inductor:AotInductor",
    "benchmarks.peers.plain_onnx:PlainOnnx",
    "benchmarks.peers.openvino:OpenVino",
)
