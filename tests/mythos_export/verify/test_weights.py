"""Weights are compared bit by bit: whatever no case visits, the hash does, and experts that moved are told apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from golden_bundles import Bundles
from golden_families import GOLDEN as FAMILIES

from mythos_export.verify import run
from mythos_export.verify.golden import GOLDEN, load_golden
from mythos_export.verify.stages import Stage
from mythos_export.verify.stages.onnxruntime import FunctionBodies
from mythos_export.verify.stages.stage import Constants
from mythos_export.verify.weights import Print, compare_weights, prints
from mythos_model import load_checkpoint
from mythos_runtime import read_manifest

Tensors = dict[str, np.ndarray]
MIXTURE = "recurrent.block.ffn"
DOWN = "coda.0.ffn.down.weight"
ORDER = [1, 0, 2, 3, 4, 5, 6, 7]


def found(bundle: Path, file: str, plant: Callable[[Tensors], None] = lambda tensors: None) -> Any:
    """The problem that a file's tensors show with a plant in them, and what was compared."""
    tensors = {name: array.copy() for name, array in Constants(bundle / file, {}).items()}
    plant(tensors)
    stage = cast(Stage, SimpleNamespace(weights=lambda: {file: tensors}))
    return compare_weights(stage, load_golden(bundle / GOLDEN, read_manifest(bundle).spec).weights)


def router(tensors: Tensors) -> str:
    """Its name: transposed, it has none of its own."""
    dim, experts = 64, len(ORDER)
    return next(name for name, array in tensors.items() if array.shape in ((dim, experts), (experts, dim)))


def move(tensors: Tensors, *names: str) -> None:
    for name in names:
        array = tensors[name]
        tensors[name] = array[ORDER] if len(array) == len(ORDER) else array[..., ORDER]


def one_element(name: str, at: tuple[int, ...], factor: float) -> Callable[[Tensors], None]:
    def plant(tensors: Tensors) -> None:
        tensors[name][at] *= factor

    return plant


def swapped_layers(tensors: Tensors) -> None:
    """The layers before and behind the loop have each other's weights: all are the model's, none is in its place."""
    names = [f"{part}.0.attn.kv_up.weight" for part in ("prelude", "coda")]
    tensors[names[0]], tensors[names[1]] = tensors[names[1]], tensors[names[0]]


def lost_row_of_a_transposed_one(tensors: Tensors) -> None:
    name = next(name for name in tensors if name.startswith("val_") and tensors[name].ndim == 2)
    tensors[name][:, 3] = 0


@pytest.mark.parametrize(
    ("file", "plant", "tensor", "words"),
    [
        ("model.onnx", one_element(f"{MIXTURE}.routed_down", (7, 63, 31), 1.001), f"{MIXTURE}.routed_down", "rows 7"),
        ("model.onnx", one_element("embed.weight", (99, 5), 1 + 1e-6), "embed.weight", "rows 99"),
        ("model.onnx", swapped_layers, "prelude.0.attn.kv_up.weight", "is not the model's prelude.0.attn.kv_up"),
        ("model.onnx", lost_row_of_a_transposed_one, "", "rows 3 differ"),
        ("step.onnx", one_element(f"{MIXTURE}.routed_gate_up", (3, 1, 2), -1), f"{MIXTURE}.routed_gate_up", "rows 3"),
        ("enter.onnx", one_element("rotary_sin", (61, 1), 1.01), "rotary_sin", "rows 61"),
        (
            "leave.onnx",
            one_element("coda.0.ffn.down.weight_transposed", (5, 5), 1.001),
            "coda.0.ffn.down.weight",
            "rows 5",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and value.endswith("onnx") else "",
)
def test_a_changed_weight_is_named_with_its_row(
    bundles: Bundles, file: str, plant: Callable[[Tensors], None], tensor: str, words: str
) -> None:
    problem, _ = found(bundles["mla_prefill"], file, plant)
    assert problem is not None and tensor in problem.tensor and words in problem.text and file in problem.text


def test_everything_is_the_model_s_and_little_is_only_computed_of_it(bundles: Bundles) -> None:
    for file in ("model.onnx", "enter.onnx", "step.onnx", "leave.onnx"):
        problem, (line,) = found(bundles["mla_prefill"], file)
        assert problem is None and line.tensors - line.equal == len(line.derived) <= 2, line


def test_experts_in_another_order_are_an_equivalent_model_only_with_all_that_is_theirs(bundles: Bundles) -> None:
    bundle = bundles["mla_prefill"]
    routed = [f"{MIXTURE}.routed_gate_up", f"{MIXTURE}.routed_down"]
    problem, _ = found(
        bundle, "model.onnx", lambda tensors: move(tensors, *routed, router(tensors), f"{MIXTURE}.router_bias")
    )
    assert problem.tensor == MIXTURE
    assert "in another order (1, 0, 2, 3" in problem.text and "an equivalent model" in problem.text
    problem, _ = found(bundle, "model.onnx", lambda tensors: move(tensors, *routed))
    assert problem.tensor == MIXTURE and "equivalent" not in problem.text and "alone" in problem.text
    problem, _ = found(bundle, "model.onnx", lambda tensors: move(tensors, router(tensors)))
    assert problem.tensor == MIXTURE and "router.weight alone" in problem.text


@pytest.mark.parametrize("kind", ["nibbles", "zero point", "scale of the next block", "unsigned"])
def test_packed_weights_are_compared_as_they_are_packed(bundles: Bundles, kind: str) -> None:
    bundle = bundles["gqa_decode, int4" if kind != "unsigned" else "gqa_decode, int8"]

    def plant(tensors: Tensors) -> None:
        weight = tensors["recurrent.block.ffn.routed_down_quantized"]
        if kind == "nibbles":
            weight[2, 0] = weight[2, 0] >> 4 | weight[2, 0] << 4
        elif kind == "zero point":
            weight[3] ^= 0x08
        elif kind == "unsigned":
            weight[1] = np.abs(weight[1])
        else:
            scale = tensors["recurrent.block.ffn.routed_down_scale"]
            scale[0] = np.roll(scale[0], 1)

    problem, _ = found(bundle, "model.onnx", plant)
    row = {"nibbles": 2, "zero point": 3, "unsigned": 1, "scale of the next block": 0}[kind]
    assert problem is not None and "routed_down_" in problem.tensor and f"rows {row} differ" in problem.text


def test_a_stage_with_other_weights_fails_before_anything_that_comes_of_it(
    bundles: Bundles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here nothing comes of it: the graph that runs is sound, and an expert is off by what no case would show."""
    bundle = bundles["mla_prefill"]
    manifest = read_manifest(bundle)
    golden = load_golden(bundle / GOLDEN, manifest.spec)
    held = FunctionBodies.weights

    def planted(self: FunctionBodies) -> dict[str, Tensors]:
        tensors = {file: dict(each) for file, each in held(self).items()}
        array = tensors["model.onnx"][f"{MIXTURE}.routed_down"].copy()
        array[5, 0, 0] = np.nextafter(array[5, 0, 0], np.float32(1))
        tensors["model.onnx"][f"{MIXTURE}.routed_down"] = array
        return tensors

    monkeypatch.setattr(FunctionBodies, "weights", planted)
    monkeypatch.setattr(run, "STAGES", (FunctionBodies,))
    few = dataclasses.replace(golden, cases=golden.cases[2:3], text=None, boundaries={})
    parity = run.verify_bundle(bundle, manifest, threads=1, golden=few)
    (failure,) = parity.failures
    assert (failure.stage, failure.problem.tensor) == ("onnx", f"{MIXTURE}.routed_down")
    assert "rows 5 differ" in parity.verdict() and "bit by bit" in parity.verdict()
    assert failure.reproduction is None


def test_a_model_without_row_graphs_is_weighed_too() -> None:
    """Of an exit rule that reads logits."""
    model = load_checkpoint(FAMILIES / "huginn_exit_kl", exit_rule="kl").model(torch.float32)
    assert set(model.state_dict()) <= set(prints(model))


@pytest.mark.parametrize("wrong", [False, True])
def test_all_experts_in_one_part_are_weighed_as_a_whole(wrong: bool) -> None:
    """A mixture of one expert has no axis of experts left where it is hashed."""
    for experts in (1, 3):
        array = np.random.default_rng(0).standard_normal((experts, 32, 48)).astype(np.float32)
        known = {"ffn.routed_up": Print.of(torch.from_numpy(array))}
        held = array + np.float32(wrong)
        stage = SimpleNamespace(weights=lambda held=held: {"a": {f"ffn.routed_up[0:{len(held)}]": held}})
        problems, _ = compare_weights(cast(Stage, stage), known)
        assert bool(problems) == wrong, problems
