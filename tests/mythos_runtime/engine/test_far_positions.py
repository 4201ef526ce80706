"""Models of 2^20 positions near their end: in every path what the float64 model computes, as closely as near the start,
and the same bits however a chunk is cut."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]
import pytest
import torch
from row_models import FAR_POSITIONS, VOCABULARY, RowModel, far_page, fill_far
from test_core import feed

from mythos_export.capture import capture
from mythos_export.lower import lower
from mythos_export.weights_file import store_model
from mythos_model import LoopedModel
from mythos_runtime.engine.core import Core
from mythos_runtime.engine.sequence import Sequence
from mythos_runtime.op_library import find_op_library
from mythos_runtime.program import WEIGHTS
from mythos_runtime.row_ports import PAGE
from mythos_runtime.spec import CacheGroup

LENGTH, LOOPS, TOKENS = 999_968, 2, 5
ENTRIES = 1e-6  # of the first layer's cache entries' scale: rotated keys; angles in float32 would be 0.06 off here
LOGITS = 5e-3  # of theirs: sums over a million equally likely keys, which eager makes in float32


@pytest.fixture(scope="module", params=[pytest.param("mla", marks=pytest.mark.slow), "gqa"])
def far_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RowModel:
    if find_op_library() is None:
        pytest.skip("the native operators are not built: make native")
    return RowModel.openmythos(request.param, tmp_path_factory.mktemp(f"far {request.param}"), far=True)


class Made(NamedTuple):
    """Of the new tokens: the last one's logits [V], and the first layer's cache entries [T, C]."""

    logits: np.ndarray
    entries: np.ndarray

    def close(self, true: Made) -> bool:
        far = [np.abs(mine - its).max() / np.abs(its).max() for mine, its in zip(self, true, strict=True)]
        return bool(far[0] <= LOGITS and far[1] <= ENTRIES)


@pytest.fixture(scope="module")
def true(far_model: RowModel) -> Made:
    model = far_model.model.exact()
    return _made(model, _past(model.spec.caches, torch.float64))


def _ids() -> np.ndarray:
    return np.random.default_rng(0).integers(0, VOCABULARY, TOKENS)


def _past(groups: Iterable[CacheGroup], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """What `fill_far` gives a sequence, as one tensor a group."""
    past = {}
    for group in groups:
        lines = [
            torch.from_numpy(far_page(depth, slot, group.width)).to(dtype).repeat(LENGTH // PAGE, 1)
            for depth, slot in ([(d, 0) for d in range(LOOPS)] if group.per_loop else [(0, s) for s in range(2)])
        ]
        past[group.name] = torch.stack(lines).unsqueeze(1)  # [lines, 1, S, C]
    return past


def _made(model: LoopedModel, past: dict[str, torch.Tensor]) -> Made:
    with torch.no_grad():
        out = model(
            torch.from_numpy(_ids())[None],
            past_lengths=torch.tensor([LENGTH]),
            max_loops=LOOPS,
            early_exit=False,
            past=past,
        )
    return Made(out.logits[0, -1].double().numpy(), out.new["layers"][0, 0].double().numpy())


def _far(core: Core) -> Sequence:
    sequence = core.open(LOOPS, 2.0)  # which no sum reaches: every position runs both loops
    fill_far(core, sequence, LENGTH)
    return sequence


def test_the_engine_computes_the_model_there(far_model: RowModel, true: Made) -> None:
    """In one chunk, one by one on a fork, and again after a truncation: the same bits."""
    core = far_model.core(lines=64)
    assert core.around is not None
    first = _far(core)
    twin = core.fork(first)
    (whole,) = feed(core, [(first, _ids())])
    page = core.around.memory[0, first.around[LENGTH // PAGE]]
    assert Made(whole.logits[-1], page[:TOKENS].copy()).close(true)
    apart = [feed(core, [(twin, _ids()[i : i + 1])])[0] for i in range(TOKENS)]
    assert np.array_equal(whole.logits, np.concatenate([answer.logits for answer in apart]))
    core.truncate(first, LENGTH + 2)
    (again,) = feed(core, [(first, _ids()[2:])])
    assert np.array_equal(whole.logits[2:], again.logits)
    for sequence in (first, twin):
        core.close(sequence)
    assert core.loop.free == core.loop.pages


@pytest.mark.slow
def test_the_last_position_of_all(far_model: RowModel) -> None:
    core = far_model.core(lines=64)
    sequence = core.open(LOOPS, 2.0)
    fill_far(core, sequence, FAR_POSITIONS - PAGE)
    (answer,) = feed(core, [(sequence, np.zeros(PAGE, np.int64))])
    assert sequence.length == FAR_POSITIONS and np.isfinite(answer.logits).all()


@pytest.fixture(scope="module")
def whole_graph(far_model: RowModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = store_model(far_model.model, tmp_path_factory.mktemp("whole") / WEIGHTS)
    return lower(capture(weights.model), weights).path


@pytest.mark.slow
@pytest.mark.parametrize("library", [None, "own"])
def test_the_whole_graph_computes_the_model_there(
    far_model: RowModel, true: Made, library: str | None, whole_graph: Path
) -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if library is not None:
        options.register_custom_ops_library(str(find_op_library()))
    session = ort.InferenceSession(str(whole_graph), options, providers=["CPUExecutionProvider"])
    spec = far_model.model.spec
    values = {
        "ids": _ids()[None],
        "positions": LENGTH + np.arange(TOKENS)[None],
        "past_lengths": np.array([LENGTH]),
        "max_loops": np.array(LOOPS),
        "halt_threshold": np.array(0.99, np.float32),
        "early_exit": np.array(False),
    }
    past = {name: tensor.numpy() for name, tensor in _past(spec.caches, torch.float32).items()}
    wanted = [spec.ports.of("logits").name, spec.ports.of("new", "layers").name]
    logits, layers = session.run(wanted, spec.ports.by_role(values, past))
    assert Made(logits[0, -1], layers[0, 0]).close(true)


@pytest.mark.slow
def test_the_eager_model_computes_itself_there(far_model: RowModel, true: Made) -> None:
    assert _made(far_model.model, _past(far_model.model.spec.caches, torch.float32)).close(true)
