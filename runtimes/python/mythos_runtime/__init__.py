"""Run bundles made by mythos-export. Needs numpy, onnxruntime and safetensors; no torch.

from mythos_runtime import load

model = load("bundle")
out = model.forward(ids, max_loops=8)                   # ids int64 [B, T]; out.logits, out.depth, out.loops
cache = model.new_cache(batch=1, capacity=4096)
out = model.forward(ids, cache=cache)                   # appends to the cache
for step in model.generate(ids, max_new_tokens=64, temperature=0.8, top_k=50, top_p=0.95, eos=2, seed=0):
    print(step.tokens, step.depth)
"""

import os

# ONNX Runtime reports its use to Microsoft unless it finds this when it starts; the call of its API that switches that
# off comes after its first report (docs/security.md). So before anything imports it; who has set it decides.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from mythos_runtime.cache import Cache
from mythos_runtime.errors import (
    BackendFailed,
    BackendMissing,
    BundleError,
    CapacityError,
    NotVerified,
    RequestError,
    ResultError,
    RuntimeBundleError,
    Unavailable,
)
from mythos_runtime.generate import GenerationResult, Step
from mythos_runtime.generate_options import GenerateOptions
from mythos_runtime.loading import load
from mythos_runtime.manifest import Manifest, read_manifest
from mythos_runtime.model import Model, Output

# Of everything in this repository; the builds of both packages and of the C++ runtime read this line.
__version__ = "0.2.0"
__all__ = [
    "BackendFailed",
    "BackendMissing",
    "BundleError",
    "Cache",
    "CapacityError",
    "GenerateOptions",
    "GenerationResult",
    "Manifest",
    "Model",
    "NotVerified",
    "Output",
    "RequestError",
    "ResultError",
    "RuntimeBundleError",
    "Step",
    "Unavailable",
    "load",
    "read_manifest",
]
