"""What can be timed: one file a backend, the same few methods each (`backend.Backend`).

`BACKENDS` lists the bundle's own ways to run, best known first. Others plug in by the name "module:Class":
`benchmarks/peers` does so.
"""

from __future__ import annotations

_HERE = "mythos_export.bench.backends"

BACKENDS: dict[str, str] = {
    "bodies": f"{_HERE}.onnxruntime:FunctionBodies",
    "kernels": f"{_HERE}.onnxruntime:CpuKernels",
    "eager": f"{_HERE}.eager:EagerProgram",
    "cuda": f"{_HERE}.cuda:Cuda",
    "tensorrt": f"{_HERE}.tensorrt:TensorRT",
    "triton": f"{_HERE}.triton:TritonEager",
}
"""Short name, as on the command line, to "module:Class"."""
