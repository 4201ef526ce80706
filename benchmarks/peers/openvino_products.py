"""A linear layer in OpenVINO on the CPU, its weights in float32 or in blocks of 32 with a float16 scale each.

The rounded form is the pattern that OpenVINO keeps compressed and unpacks within the product: constant, Convert,
Multiply, Reshape, MatMul. `a8` asks for activations rounded to int8 in groups of 32 (its "dynamic quantization"),
without it that is switched off.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

BLOCK = 32
FORMS = ("float32", "int8", "int4", "int8a8", "int4a8")


def available() -> bool:
    return importlib.util.find_spec("openvino") is not None


def product(form: str, tokens: int, rows: int, inputs: int, threads: int) -> Callable[[], Any]:
    """Run once: x [tokens, inputs] float32 times the transposed weights [rows, inputs], a form of `FORMS`."""
    import openvino
    from openvino import opset13 as ops

    x = ops.parameter([tokens, inputs], np.float32, name="x")
    few = np.random.default_rng(0)
    if form == "float32":
        values = np.tile(few.standard_normal((64, inputs), np.float32), (rows // 64, 1))
        weights = ops.constant(values)
    else:
        bits = int(form.removeprefix("int").removesuffix("a8"))
        values = np.tile(few.integers(-128, 128, 64 * inputs * bits // 8, np.int8), rows // 64)
        weights = _rounded(values, bits, rows, inputs)
    model = openvino.Model([ops.matmul(x, weights, False, True)], [x], form)
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": BLOCK if form.endswith("a8") else 0,
    }
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    feed = {"x": np.random.default_rng(0).standard_normal((tokens, inputs), np.float32)}

    def run(_alive: object = values) -> None:  # constants of four bits share the array's memory
        request.infer(feed, share_inputs=True, share_outputs=True)

    return run


def _rounded(values: np.ndarray, bits: int, rows: int, inputs: int) -> Any:
    """[rows, inputs] in float32, of `values`: int8, two weights a byte where they have four bits."""
    import openvino
    from openvino import opset13 as ops

    shape, element = [rows, inputs // BLOCK, BLOCK], {8: openvino.Type.i8, 4: openvino.Type.i4}[bits]
    data = openvino.op.Constant(openvino.Tensor(values, shape, element))
    scale = ops.constant(np.full((rows, inputs // BLOCK, 1), 0.01, np.float16))
    weights = ops.multiply(ops.convert(data, np.float16), scale)
    return ops.convert(ops.reshape(weights, [rows, inputs], False), np.float32)
