"""The order of implementations: one table in the code, the same in docs/kernels.md, and what a manifest says of it."""

from __future__ import annotations

from pathlib import Path

from golden_bundles import Bundles

from mythos_export.kernels.fallback import DECOMPOSED, ORDER, PLUGIN, TRITON, record
from mythos_export.kernels.op import OPERATORS
from mythos_runtime import read_manifest


def test_the_page_shows_the_table() -> None:
    page = (Path(__file__).parents[3] / "docs" / "kernels.md").read_text()
    for runner, order in ORDER.items():
        names = ", else ".join(implementation.name for implementation in order.implementations)
        assert f"| {runner} | {names} | {order.decided} |" in page


def test_the_manifest_records_what_was_taken() -> None:
    entry = record({"mythos::moe": frozenset()}, DECOMPOSED)["mythos::moe"]["TensorRT"]
    assert (entry["taken"], entry["decided"]) == ("decomposition", "at export")
    assert "--plugins" in entry["passed over"]["plug-in with Triton kernels"]
    entry = record({"mythos::moe": frozenset()}, PLUGIN)["mythos::moe"]["TensorRT"]
    assert (entry["taken"], entry["passed over"]) == ("plug-in with Triton kernels", {})


def test_an_operator_without_kernels_for_a_gpu_says_so() -> None:
    assert not OPERATORS["act_halting"].lacks() and not OPERATORS["moe"].lacks()
    assert OPERATORS["moe"].lacks("int8") == {PLUGIN, DECOMPOSED}
    over_pages = OPERATORS["paged_gqa_attention"]
    assert over_pages.lacks() == {PLUGIN} and over_pages.lacks(packed=True) == {PLUGIN, DECOMPOSED}
    entry = record({"mythos::paged_gqa_attention": over_pages.lacks()}, PLUGIN)["mythos::paged_gqa_attention"]
    assert (entry["TensorRT"]["taken"], entry["TensorRT"]["passed over"]) == ("decomposition", {})
    assert entry["PyTorch (model.pt2), CUDA"]["order"] == ["Triton kernels", "plain PyTorch"]
    assert TRITON in OPERATORS["linear"].lacks() - OPERATORS["linear"].lacks("int4")  # plain: the vendor's library
    plain = record({"mythos::embedding": OPERATORS["embedding"].lacks("int8")}, DECOMPOSED)["mythos::embedding"]
    assert plain["PyTorch (model.pt2), CUDA"]["order"] == ["plain PyTorch"]


def test_a_bundle_without_tensorrt_says_nothing_of_it(bundles: Bundles) -> None:
    operators = read_manifest(bundles["mla_prefill"]).operators
    rows = {"mythos::paged_mla_attention"}
    assert operators.keys() == {"mythos::moe", "mythos::mla_attention", "mythos::act_halting", *rows}
    assert "TensorRT" not in operators["mythos::moe"]
    assert operators["mythos::moe"]["ONNX Runtime, CPU"]["order"] == ["CPU kernel", "portable function body"]
