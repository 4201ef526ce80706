"""The pieces of a step, one after the other, against the step as one graph: equal to the bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from row_models import RowModel, config

from mythos_export.errors import TargetError
from mythos_export.shards.cut import deal
from mythos_export.shards.files import shard
from mythos_model import MythosModel
from mythos_runtime.op_library import find_op_library
from mythos_runtime.ort import OrtSession
from mythos_runtime.ports import Ports, numpy_dtype, shape_of
from mythos_runtime.row_ports import STEP
from mythos_runtime.session import Options
from mythos_runtime.shards.entry import EXPERTS, REST, ROUTE, SHARED
from mythos_runtime.shards.share import shares

SIZES = {"R": 5, "S": 5, "K": 1, "G": 5}
Values = dict[str, np.ndarray]


def feeds_of(ports: Ports) -> Values:
    """Rows at the first position of sequences of their own, at several depths."""
    r = np.random.default_rng(0)
    rows = np.arange(SIZES["R"])
    known = {"span": rows, "tables": rows[:, None], "position": 0 * rows, "loop": rows % 3, "last": rows == 4}
    known |= {"halt_threshold": np.full(5, 0.9)}
    return {
        port.name: known[port.role].astype(port.dtype)
        if port.role in known
        else (0.3 * r.standard_normal(shape_of(port, SIZES))).astype(numpy_dtype(port.dtype))
        for port in ports.inputs
    }


@pytest.mark.parametrize(("native", "shared"), [(True, 0), (False, 1)], ids=["CPU kernels", "function bodies"])
def test_the_pieces_are_the_step(shared: int, native: bool, tmp_path: Path) -> None:
    """Without shared experts, and with; every expert is chosen, so that the order of the sum shows."""
    if native and find_op_library() is None:
        pytest.skip("the native operators are not built: make native")
    model = MythosModel(replace(config("gqa"), n_shared_experts=shared, n_experts_per_tok=3)).reset_parameters(2)
    RowModel.of(model.eval().requires_grad_(False), tmp_path)
    options = Options(1, provider="cpu", op_library="auto" if native else None)
    step = model.spec.graphs[STEP]
    feeds = feeds_of(step)
    whole = OrtSession(tmp_path / "step.onnx", step, options).run(feeds)

    entry, files = shard(tmp_path, model.spec, 3)
    assert entry.counts == (2, 1, 1) and (SHARED in entry.graphs) == bool(shared)
    assert {file.name for file in files} >= {"route.onnx", "rest.onnx", "experts-3-of-3.onnx"}
    values = dict(feeds)

    def run(name: str) -> None:
        ports = entry.graphs[name]
        given = {port.name: values[port.name] for port in ports.inputs}
        values.update(OrtSession(tmp_path / f"{name}.onnx", ports, options).run(given))

    run(ROUTE)
    if shared:
        run(SHARED)
    choices = values[entry.graphs[ROUTE].of("expert_index").name]
    x, parts = values[entry.graphs[ROUTE].of("x").name], np.zeros((choices.size, entry.dim), np.float32)
    firsts = np.array([entry.experts(index).start for index in range(3)])
    for index, share in enumerate(shares(choices, entry.owners(), firsts)):
        if share is not None:
            session = OrtSession(tmp_path / f"{entry.name(index)}.onnx", entry.graphs[EXPERTS], options)
            parts[share.pairs] = session.run({"x": x[share.rows], "row": share.row, "expert": share.expert})["out"]
    values["parts"] = parts.reshape(*choices.shape, entry.dim)
    run(REST)
    for port in step.outputs:
        if native:
            assert np.array_equal(values[port.name], whole[port.name]), port
        else:
            assert np.allclose(values[port.name], whole[port.name], rtol=1e-5, atol=1e-6), port


def test_experts_are_dealt_evenly() -> None:
    assert deal(7, 3) == (3, 2, 2) and deal(4, 4) == (1, 1, 1, 1)
    with pytest.raises(TargetError, match="can be 1 to 4"):
        deal(4, 5)
