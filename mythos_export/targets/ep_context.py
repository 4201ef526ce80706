"""The ONNX file through which ONNX Runtime's TensorRT-RTX provider loads an engine that is beside it.

C++ programs take this way (`runtimes/cpp/src/tensorrt.cpp`). Running it needs a GPU and was not done.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import helper

SUFFIX = ".ep_context.onnx"
PROVIDER = "NvTensorRTRTXExecutionProvider"
_IR_VERSION = 10  # what the oldest ONNX Runtime with this provider reads


def write_ep_context(engine: Path, graph: Path) -> Path:
    """Write NAME.ep_context.onnx beside NAME.engine, with the ports of `graph`, and return its path."""
    ports = onnx.load(graph, load_external_data=False).graph
    node = helper.make_node(
        "EPContext",
        [port.name for port in ports.input],
        [port.name for port in ports.output],
        domain="com.microsoft",
        embed_mode=0,
        ep_cache_context=engine.name,  # relative to this file, and never upwards: the provider refuses that
        partition_name=engine.stem,
        main_context=0,
        source=PROVIDER,
        ep_sdk_version="1.0",
    )
    wrapper = helper.make_graph([node], engine.stem, list(ports.input), list(ports.output))
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    path = engine.with_suffix(SUFFIX)
    onnx.save(helper.make_model(wrapper, opset_imports=opsets, ir_version=_IR_VERSION), path)
    return path
