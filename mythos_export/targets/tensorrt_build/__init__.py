"""ONNX file in, TensorRT engines out, on a machine without a GPU.

    from mythos_export.targets.tensorrt_build import BuildRequest, Range, build, graph_inputs, load_graph, profiles_for

    inputs = graph_inputs(load_graph(onnx))
    profiles = profiles_for(inputs, batch=Range(1, 1, 8), tokens=Range(1, 128, 512),
                            context=Range(0, 1024, 4096), loops=Range(1, 16, 16))
    result = build(BuildRequest(onnx, bundle / "engines", tuple(profiles)), progress=show)
    result.state                        # "built, not executed"

`options` the request and the result, `profiles` shapes from ranges, `limits` what cannot be built, `graph` the checks
of the ONNX file, `environment` which TensorRT is here, `worker` what runs in its process.
"""

from __future__ import annotations

from .build import build
from .environment import Backend, Environment, choose_backend, inspect_environment
from .graph import graph_inputs, load_graph
from .limits import Limit, group_sms, parse_sms
from .options import DEFAULT_PRECISION, DEFAULT_SMS, PRECISIONS, STATE, BuildRequest, BuildResult, Engine
from .profiles import Profile, Range, check_ranges, profiles_for, row_profile

__all__ = [
    "DEFAULT_PRECISION",
    "DEFAULT_SMS",
    "PRECISIONS",
    "STATE",
    "Backend",
    "BuildRequest",
    "BuildResult",
    "Engine",
    "Environment",
    "Limit",
    "Profile",
    "Range",
    "build",
    "check_ranges",
    "choose_backend",
    "graph_inputs",
    "group_sms",
    "inspect_environment",
    "load_graph",
    "parse_sms",
    "profiles_for",
    "row_profile",
]
