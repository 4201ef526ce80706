"""What this machine can do at best: reading memory, matrix-vector and matrix products, by the best library here.

Measured in a process of its own, in turns with the contestants, so that a row is held against what the machine did in
those minutes. No implementation in float32 can take less than a call's bytes at the reading rate of its working set,
nor less than its multiplications at the rate of a large product.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mythos_export.bench.backends.backend import Backend, Setting
from mythos_export.kernels.text import DOMAIN
from mythos_runtime.op_library import find_op_library

SIZES_MB = (1, 4, 16, 48, 160)
WIDTH = 1024  # columns of the matrices that are read
SQUARE = 1024
CALIBRATION_SQUARE, CALIBRATION_MB = 256, 4
REST = 0.05  # seconds


class Limits(Backend):
    """`measure` gives {"read": {megabytes: {library: bytes/s}}, "product": {library: FLOP/s}}."""

    name = "limits"

    def missing(self, setting: Setting) -> str | None:
        return None

    def load(self, setting: Setting) -> str:
        import torch

        torch.set_num_threads(setting.threads)
        self._threads = setting.threads
        self._vector = np.random.default_rng(0).standard_normal(WIDTH, np.float32)
        self._matrices = {mb: _matrix(mb * 1_000_000 // (4 * WIDTH), WIDTH) for mb in SIZES_MB}
        self._square = _matrix(SQUARE, SQUARE)
        small = torch.from_numpy(_matrix(CALIBRATION_SQUARE, CALIBRATION_SQUARE))
        self._small_product = lambda: torch.mm(small, small)
        self._readers = {mb: self._reading(matrix) for mb, matrix in self._matrices.items()}
        self._products = self._multiplying(self._square)
        return f"torch {torch.__version__}, numpy {np.__version__}, ONNX Runtime and this project's own products"

    def measure(self, what: str, seconds: float) -> dict[str, Any]:
        """`limits`: every rate, `seconds` for each. `calibration`: seconds of two small fixed kernels."""
        if what == "calibration":
            read, multiply = self._readers[CALIBRATION_MB]["torch.mv"], self._small_product
            return {"read_seconds": _best(read, seconds), "product_seconds": _best(multiply, seconds)}
        rates = {
            mb: {library: self._matrices[mb].nbytes / _best(call, seconds) for library, call in calls.items()}
            for mb, calls in self._readers.items()
        }
        flops = 2 * SQUARE**3
        return {"read": rates, "product": {name: flops / _best(call, seconds) for name, call in self._products.items()}}

    def _reading(self, matrix: np.ndarray) -> dict[str, Callable[[], object]]:
        import torch

        tensor, vector = torch.from_numpy(matrix), torch.from_numpy(self._vector)
        return {
            "torch.mv": lambda: torch.mv(tensor, vector),
            "torch.sum": tensor.sum,
            "numpy": lambda: matrix @ self._vector,
            "ONNX Runtime": _onnx_product(matrix.T, self._vector[None], self._threads),
            **_own_product(matrix, self._vector[None], self._threads),
        }

    def _multiplying(self, square: np.ndarray) -> dict[str, Callable[[], object]]:
        import torch

        tensor = torch.from_numpy(square)
        return {
            "torch.mm": lambda: torch.mm(tensor, tensor),
            "numpy": lambda: square @ square,
            "ONNX Runtime": _onnx_product(square, square, self._threads),
            **_own_product(square, square, self._threads),
        }


def _matrix(rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(rows).standard_normal((rows, columns), np.float32)


def _onnx_product(matrix: np.ndarray, x: np.ndarray, threads: int) -> Callable[[], object]:
    """x @ matrix in ONNX Runtime, the matrix a constant that it may pack."""
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "matrix"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(x.shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [x.shape[0], matrix.shape[1]])],
        [numpy_helper.from_array(np.ascontiguousarray(matrix), "matrix")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return _running(model, x, threads)


def _own_product(matrix: np.ndarray, x: np.ndarray, threads: int) -> dict[str, Callable[[], object]]:
    """x @ matrix.T as this project's kernels compute it, where they are built: nothing may be above the limits."""
    from onnx import TensorProto, helper, numpy_helper

    if find_op_library() is None:
        return {}
    node = helper.make_node("linear", ["x", "matrix"], ["y"], domain=DOMAIN, rows=matrix.shape[0])
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(x.shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [x.shape[0], matrix.shape[0]])],
        [numpy_helper.from_array(matrix, "matrix")],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, 1)]
    return {"mythos.linear": _running(helper.make_model(graph, opset_imports=opsets, ir_version=10), x, threads)}


def _running(model: Any, x: np.ndarray, threads: int) -> Callable[[], object]:
    import onnxruntime as ort  # type: ignore[import-untyped]

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # A dozen sessions' threads that look for work for long would take the cores from the one that is timed.
    options.add_session_config_entry("session.intra_op.spin_duration_us", "50")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if library := find_op_library():
        options.register_custom_ops_library(str(library))
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x})


def _best(call: Callable[[], object], seconds: float) -> float:
    """The shortest of the calls that fit into the time, two at least. Rests first: threads of the library before that
    still look for work would take the cores."""
    time.sleep(REST)
    call()
    best, end = math.inf, time.perf_counter() + seconds
    while best == math.inf or time.perf_counter() < end:
        started = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - started)
    return best


def best_of(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The limits of a run: the best library of each kind by its median over the rounds, and that median."""
    reads = []
    for mb in SIZES_MB:
        rates = {name: [r["read"][str(mb)][name] for r in rounds] for name in rounds[0]["read"][str(mb)]}
        reads.append({"working_set_mb": mb, **_winner(rates, "bytes_per_second")})
    rates = {name: [r["product"][name] for r in rounds] for name in rounds[0]["product"]}
    return {"read": reads, "product": {"square": SQUARE, **_winner(rates, "flops_per_second")}}


def _winner(rates: Mapping[str, list[float]], unit: str) -> dict[str, Any]:
    medians = {name: float(np.median(values)) for name, values in rates.items()}
    best = max(medians, key=lambda name: medians[name])
    return {unit: medians[best], "library": best, "lowest": min(rates[best]), "highest": max(rates[best])}


def reading_rate(limits: dict[str, Any], working_set: float) -> float:
    """Bytes per second for a working set, between the measured sizes by the logarithm of the size."""
    sizes = [math.log(entry["working_set_mb"] * 1e6) for entry in limits["read"]]
    rates = [entry["bytes_per_second"] for entry in limits["read"]]
    return float(np.interp(math.log(max(working_set, 1.0)), sizes, rates))
