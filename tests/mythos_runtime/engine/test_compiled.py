"""Row graphs compiled ahead of time: what is held to what, and what is refused. `test_cuda.py` compiles some."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from row_models import RowModel

from mythos_runtime.engine.device import compared, compiled
from mythos_runtime.engine.device.compiled import compile_rows, load_compiled
from mythos_runtime.engine.device.programs import cut
from mythos_runtime.errors import BackendFailed, BackendMissing, BundleError
from mythos_runtime.files import describe
from mythos_runtime.ports import Ports
from mythos_runtime.row_ports import GRAPHS, ROWS, STEP
from mythos_runtime.torch_device import TorchDevice

ROWS_HASH = "0" * 64
MANIFEST: Any = SimpleNamespace(files={ROWS: SimpleNamespace(sha256=ROWS_HASH)})


def device(row_model: RowModel | None = None) -> Any:
    """The CPU; of a model, its program is in every file."""
    import mythos_model.ops

    made = TorchDevice(torch, "cpu", [], [mythos_model.ops])
    if row_model is not None:
        made.load = lambda file: row_model.captured.program  # type: ignore[method-assign]
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in GRAPHS:
        (tmp_path / f"{name}.pt2").write_bytes(name.encode())
    described = {
        "format_version": 1,
        "rows": ROWS_HASH,
        "torch": torch.__version__,
        "device": compiled._named(device()),
        "files": {f"{name}.pt2": vars(describe(tmp_path / f"{name}.pt2")) for name in GRAPHS},
    }
    (tmp_path / "aoti.json").write_text(json.dumps(described))
    return tmp_path


def changed(folder: Path, **fields: Any) -> None:
    file = folder / "aoti.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


REFUSED: dict[str, tuple[Callable[[Path], Any], type[Exception], str]] = {
    "no description": (lambda f: (f / "aoti.json").unlink(), BundleError, "is no folder of compiled row graphs"),
    "another one": (lambda f: changed(f, files={}), BundleError, "it describes the files  in version 1"),
    "a later form": (
        lambda f: changed(f, format_version=2),
        BundleError,
        "leave.pt2, step.pt2 in version 2",
    ),
    "another bundle": (lambda f: changed(f, rows="1" * 64), BundleError, "of another bundle, .*package aoti BUNDLE"),
    "another torch": (lambda f: changed(f, torch="1.0"), BackendMissing, "compiled for torch '1.0', found '2"),
    "another device": (
        lambda f: changed(f, device="H100 (SM 90)"),
        BackendMissing,
        r"'H100 \(SM 90\)', found 'cpu \(",
    ),
    "another processor": (lambda f: changed(f, device="cpu (riscv64, no vectors)"), BackendMissing, "'cpu .riscv64,"),
    "no hashes": (lambda f: changed(f, files={f"{name}.pt2": {} for name in GRAPHS}), BundleError, "no folder of comp"),
    "a changed file": (
        lambda f: (f / "step.pt2").write_bytes(b"stop"),
        BundleError,
        "step.pt2 is not .*package aoti",
    ),
    "no archive": (lambda f: None, BackendFailed, "cannot load .*enter.pt2"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_not_loaded(case: str, folder: Path) -> None:
    spoil, error, words = REFUSED[case]
    spoil(folder)
    with pytest.raises(error, match=words):
        load_compiled(folder, MANIFEST, device(), dict.fromkeys(GRAPHS, SimpleNamespace()))


def test_what_computes_something_else_is_not_described(
    row_model: RowModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the compiler takes the very graphs: they compute what rows.pt2 does; one that is off is found."""
    spec, out = row_model.model.spec, tmp_path / "out"
    manifest: Any = SimpleNamespace(files=MANIFEST.files, spec=spec)
    seen: list[str] = []

    def stand_in(torch: Any, part: Any, ports: Any, device: str, path: Path) -> None:
        seen.extend(str(node.target) for node in part.graph.nodes if node.op == "call_function")
        path.write_bytes(b"made")

    def opened(torch: Any, path: Path, part: Any, off: float = 0.0) -> Any:
        if path.stem != STEP or not off:
            return part
        return lambda *given: [value * (1 + off) if value.is_floating_point() else value for value in part(*given)]

    monkeypatch.setattr(compiled, "_compile", stand_in)
    monkeypatch.setattr(compiled, "_load", opened)
    described = compile_rows(tmp_path / "bundle", manifest, device(row_model), out)
    assert described["compared"]["largest_distance"] < 1e-6 and described["compared"]["tokens"] == 9
    assert described["compared"]["positions"] > 0
    assert json.loads((out / "aoti.json").read_text()) == described
    whole = ("mythos.rms_norm", "mythos.loop_tail", "mythos.act_halting", "mythos.rotary")  # are fused
    assert not [name for name in seen if name.startswith(whole)]
    assert any(name.startswith("mythos.paged_") for name in seen) and any("mythos.moe" in name for name in seen)
    monkeypatch.setattr(compiled, "_load", lambda *given: opened(*given, off=0.01))
    with pytest.raises(
        BackendFailed, match=r"does not compute what rows.pt2 does: logits are off by .*, 0.0001 is all"
    ):
        compile_rows(tmp_path / "bundle", manifest, device(row_model), out)
    assert not (out / "aoti.json").exists()


def earlier(row_model: RowModel, factor: float) -> dict[str, Callable[..., Any]]:
    """The row graphs, whose positions halt as if their thresholds were multiplied."""
    spec = row_model.model.spec
    parts = cut(row_model.captured.program.module(), spec.graphs)
    at = [port.role for port in spec.graphs[STEP].inputs].index("halt_threshold")

    def step(*given: Any) -> Any:
        return parts[STEP](*given[:at], given[at] * factor, *given[at + 1 :])

    return {**parts, STEP: step}


def test_where_positions_halt_is_held_to_the_bundle(row_model: RowModel) -> None:
    """At every position but those that a rounding may turn, and what is behind them, which are counted."""
    spec, on = row_model.model.spec, device(row_model)
    plain = earlier(row_model, 1.0)
    found = compared.compare(spec, on, plain, earlier(row_model, 1 + 1e-6))
    prompts = compared._prompts(spec)
    every = sum(map(len, prompts))
    default = spec.exit.knob("halt_threshold").default
    assert found["thresholds"] == pytest.approx([default, default / 2])
    assert found["positions"] + found["near_ties_left_out"] == 2 * every and found["positions"] > every
    with pytest.raises(BackendFailed, match=r"position \d+ of \d+ halts after \d loops, there after \d, and at no thr"):
        compared.compare(spec, on, plain, earlier(row_model, 0.7))

    def depths(threshold: float) -> Any:
        return compared._forward(spec, on, plain, prompts, threshold)[-1].depth

    low, high = 0.3, 0.9
    at = int((depths(low) != depths(high)).argmax())  # of the longest; where it turns is a near tie
    least = depths(low)[at]
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if depths(middle)[at] == least else (low, middle)
    turned = earlier(row_model, 1 - 1e-5)  # below the tie
    halted = compared._halted(spec, on, plain, turned, high, 1e-4)
    assert halted.early and halted.left_out >= len(prompts[-1]) - at
    with pytest.raises(BackendFailed, match=f"position {at} of {len(prompts[-1])} halts after {least} loops"):
        compared._halted(spec, on, plain, turned, high, 1e-9)


def test_where_nothing_halts_nothing_is_said_to_halt_alike(
    row_model: RowModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a threshold counts no positions, but what halts there all the same is found."""
    spec, on = row_model.model.spec, device(row_model)
    plain = earlier(row_model, 1.0)
    monkeypatch.setattr(compared, "_thresholds", lambda spec: [5.0])
    found = compared.compare(spec, on, plain, plain)
    assert found["thresholds"] == [] and "positions" not in found
    with pytest.raises(BackendFailed, match="halts after"):
        compared.compare(spec, on, plain, earlier(row_model, 0.1))
    monkeypatch.setattr(compared, "_thresholds", lambda spec: [5.0, 0.6])
    assert compared.compare(spec, on, plain, plain)["thresholds"] == [0.6]


@pytest.mark.parametrize(("default", "tried"), [(0.0, [0.0]), (0.5, [0.5, 0.25]), (math.inf, [math.inf])])
def test_no_threshold_is_tried_twice(default: float, tried: list[float]) -> None:
    knob = SimpleNamespace(default=default, least=None, most=None)
    spec: Any = SimpleNamespace(exit=SimpleNamespace(knob=lambda name: knob))
    assert compared._thresholds(spec) == tried


def test_a_near_tie_is_as_near_at_every_threshold(row_model: RowModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """How much of a state changes is off by what the state is off by: at a threshold of 0, too."""
    tried: list[float] = []

    def forward(spec: Any, on: Any, programs: Any, prompts: list[list[int]], threshold: float) -> list[Any]:
        tried.append(threshold)
        return [SimpleNamespace(depth=np.ones(len(p), int), logits=np.ones((len(p), 2))) for p in prompts]

    monkeypatch.setattr(compared, "_forward", forward)
    for threshold in (0.0, 0.01, 0.99):
        tried.clear()
        compared._halted(row_model.model.spec, device(), {}, {}, threshold, 1e-4)
        assert sorted(tried) == pytest.approx([threshold - 1e-4, threshold, threshold, threshold + 1e-4])


@pytest.mark.parametrize(("inside", "words"), [("", "is in the bundle"), ("x", "is in the bundle"), ("..", "holds ")])
def test_a_place_of_its_own(tmp_path: Path, inside: str, words: str) -> None:
    """Not the bundle's folder, nor one with other files, which would be written over."""
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    with pytest.raises(BundleError, match=words):
        compile_rows(bundle, SimpleNamespace(spec=None, files={}), device(), bundle / inside)  # type: ignore[arg-type]


@pytest.mark.parametrize(("knob", "depths"), [(None, ()), ("halt_threshold", (4, 4, 4))])
def test_a_model_that_halts_nowhere_is_asked_for_no_depths(knob: str | None, depths: tuple[int, ...]) -> None:
    spec: Any = SimpleNamespace(trained_loops=4, exit=SimpleNamespace(knob=lambda name: name if name == knob else None))
    assert compared.depths_of(spec, 3) == depths


def test_what_the_compiler_says_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*given: Any, **named: Any) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr("torch.export.export", failing)
    with pytest.raises(BackendFailed, match="did not compile enter: RuntimeError: no compiler"):
        compiled._compile(torch, None, Ports((), ()), "cpu", tmp_path / "enter.pt2")
