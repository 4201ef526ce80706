"""The order of implementations: one table in the code, the same in docs/kernels.md, and what a manifest says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from golden_bundles import Bundles

from mythos_export.kernels.fallback import (
    DECOMPOSED,
    ORDER,
    PLUGIN,
    TENSORRT,
    TENSORRT_ROWS,
    TRITON,
    Given,
    Implementation,
    record,
)
from mythos_export.kernels.op import OPERATORS
from mythos_runtime import read_manifest


def test_the_page_shows_the_table() -> None:
    page = (Path(__file__).parents[3] / "docs" / "kernels.md").read_text()
    for runner, order in ORDER.items():
        names = ", else ".join(implementation.name for implementation in order.implementations)
        assert f"| {runner} | {names} | {order.decided} |" in page


def test_the_manifest_records_what_was_taken() -> None:
    entry = recorded("moe", DECOMPOSED)["TensorRT"]
    assert (entry["taken"], entry["decided"]) == ("decomposition", "at export")
    assert "--plugins" in entry["passed over"]["plug-in with Triton kernels"]
    entry = recorded("moe", PLUGIN)["TensorRT"]
    assert (entry["taken"], entry["passed over"]) == ("plug-in with Triton kernels", {})


def test_the_manifest_says_which_engines_hold_plug_ins() -> None:
    """Engines of the row graphs have none, whatever the whole model's has; an operator is said to be where it is."""
    engines = {
        TENSORRT: Given(frozenset({"mythos::moe", "mythos::gqa_attention"}), PLUGIN),
        TENSORRT_ROWS: Given(frozenset({"mythos::moe", "mythos::paged_gqa_attention"}), DECOMPOSED),
    }
    names = ("moe", "gqa_attention", "paged_gqa_attention")
    operators = record({f"mythos::{name}": OPERATORS[name].lacks() for name in names}, engines)
    taken = {
        name: {runner: operators[f"mythos::{name}"][runner]["taken"] for runner in engines if runner in entry}
        for name in names
        if (entry := operators[f"mythos::{name}"])
    }
    assert taken == {
        "moe": {"TensorRT": "plug-in with Triton kernels", "TensorRT, row graphs": "decomposition"},
        "gqa_attention": {"TensorRT": "plug-in with Triton kernels"},
        "paged_gqa_attention": {"TensorRT, row graphs": "decomposition"},
    }


def recorded(name: str, implementation: Implementation, format: str = "plain") -> dict[str, Any]:
    """The entry of an operator in a bundle whose one engine holds it."""
    label = f"mythos::{name}"
    entries = record({label: OPERATORS[name].lacks(format)}, {TENSORRT: Given(frozenset({label}), implementation)})
    found: dict[str, Any] = entries[label]
    return found


def test_an_operator_without_kernels_for_a_gpu_says_so() -> None:
    assert not OPERATORS["act_halting"].lacks() and not OPERATORS["moe"].lacks()
    assert OPERATORS["moe"].lacks("int8") == {PLUGIN, DECOMPOSED}
    over_pages = OPERATORS["paged_gqa_attention"]
    assert over_pages.lacks() == {PLUGIN} and over_pages.lacks(packed=True) == {PLUGIN, DECOMPOSED}
    entry = recorded("paged_gqa_attention", PLUGIN)
    assert (entry["TensorRT"]["taken"], entry["TensorRT"]["passed over"]) == ("decomposition", {})
    assert entry["PyTorch (model.pt2), CUDA"]["order"] == ["Triton kernels", "plain PyTorch"]
    assert TRITON in OPERATORS["linear"].lacks() - OPERATORS["linear"].lacks("int4")  # plain: the vendor's library
    plain = recorded("embedding", DECOMPOSED, "int8")
    assert "TensorRT" not in plain
    assert plain["PyTorch (model.pt2), CUDA"]["order"] == ["plain PyTorch"]


def test_a_bundle_without_tensorrt_says_nothing_of_it(bundles: Bundles) -> None:
    operators = read_manifest(bundles["mla_prefill"]).operators
    rows = {"mythos::paged_mla_attention"}
    assert operators.keys() == {"mythos::moe", "mythos::mla_attention", "mythos::act_halting", *rows}
    assert "TensorRT" not in operators["mythos::moe"]
    assert operators["mythos::moe"]["ONNX Runtime, CPU"]["order"] == ["CPU kernel", "portable function body"]
