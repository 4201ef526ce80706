"""The launcher in C++: what it launches is what Python's plans say, and computes what the references do. On no GPU."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]
import pytest
from case_calls import calls_of_cases
from cuda_ops import OTHERS, SERVED, act, model_of
from golden_bundles import GOLDEN, config_of
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_in_gpu import BUILD, LIBRARY, open_session, write_kernels
from stand_in_process import check

from mythos_export.kernels.call import OperatorCall
from mythos_export.kernels.cuda.signatures import described
from mythos_export.kernels.launch_plan import evaluate
from mythos_export.making import load, make
from mythos_export.targets.registry import find_target
from mythos_export.targets.target import TargetOptions
from mythos_model.pretrained import folder

EVALUATE = BUILD / "mythos_cuda_evaluate"
pytestmark = pytest.mark.skipif(not LIBRARY.exists(), reason=f"{LIBRARY.name} is not built: make native")
QUICK = ("act_halting", "linear:int4", "paged_mla_attention:int8 pages")


def run(*asked: str) -> None:
    check("cuda_ops.py", asked=asked)


@pytest.mark.parametrize("op", [pytest.param(op, marks=[pytest.mark.slow] * (op not in QUICK)) for op in SERVED])
def test_launches_what_pythons_plan_does_and_computes_what_the_reference_does(op: str) -> None:
    run(op)


@pytest.mark.slow
@pytest.mark.parametrize(("case", "precision"), [("mla_decode", "fp32"), ("gqa_prefill", "fp32"), ("", "int4")])
def test_a_whole_model_runs_on_it(case: str, precision: str, tmp_path: Path) -> None:
    """Its graph with the Loop, of a small model in float32 and of the pretrained one in int4."""
    source, config = (GOLDEN / case / "model.safetensors", config_of(case)) if case else (folder("hops"), {})
    make(load(source, precision, **config), tmp_path, find_target("onnx"), TargetOptions(precision))
    run(str(tmp_path))


@pytest.mark.parametrize("what", OTHERS)
def test_two_gpus_and_what_is_damaged(what: str) -> None:
    run(what)


_names = st.sampled_from(["a", "b", "n_1"])
_expressions = st.recursive(
    st.one_of(_names, st.integers(0, 9).map(str)),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from([" + ", "-", " * ", " // ", " <= ", "<", " > ", ">=", " == "]), inner).map(
            lambda parts: f"({''.join(parts)})"
        ),
        st.tuples(inner, inner, inner).map(lambda three: f"{three[0]} - {three[1]} * {three[2]}"),
        st.tuples(st.sampled_from(["cdiv", "min", "max"]), inner, inner).map(lambda c: f"{c[0]}({c[1]}, {c[2]})"),
    ),
    max_leaves=8,
)


def test_expressions_are_worth_what_python_says() -> None:
    process = subprocess.Popen([str(EVALUATE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def told(expression: str, sizes: dict[str, int]) -> str:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{expression}\t{' '.join(f'{name}={size}' for name, size in sizes.items())}\n")
        process.stdin.flush()
        return process.stdout.readline().rstrip("\n")

    @settings(max_examples=300, deadline=None)
    @given(_expressions, st.fixed_dictionaries({name: st.integers(-50, 2**40) for name in ("a", "b", "n_1")}))
    def check(expression: str, sizes: dict[str, int]) -> None:
        found = told(expression, sizes)
        try:
            expected = int(evaluate(expression, sizes))
        except ZeroDivisionError:
            assert found.startswith("error division by 0")
            return
        if abs(expected) < 2**60:  # beyond, something between may not have fitted
            assert found == str(expected) or "larger than 64 bits" in found

    check()
    for wrong in ("", "a +", "a ** b", "f(a, b)", "a.b", "__import__", "-a", "1.5", "cdiv(a)", "a b"):
        assert told(wrong, {"a": 1, "b": 2}).startswith("error ")
        with pytest.raises((ValueError, NameError, TypeError)):
            evaluate(wrong, {"a": 1, "b": 2})
    large, least = 2**62, {"a": -(2**62), "b": -1}
    for unheld in ("(a * 2) // b", "cdiv(a * 2, b)", "a * 4", "a * 2 - 1", f"{10**17} * 100"):
        assert told(unheld, least).endswith("is larger than 64 bits hold")
    for held in ("a * 2 // 1", "cdiv(a * 2, 1)", "cdiv(a * 2, 3)", "a * 2 // 3", "cdiv(a, b)", "(a + 1) // 2 * 2"):
        assert told(held, least) == str(evaluate(held, least))
    assert told("a + (a - 1)", {"a": large}) == str(2 * large - 1)
    deep = 60
    for shape in ("({})", "max(1, {})", "1 + ({})", "2 * min({}, 9)"):
        before, after = shape.split("{}")
        assert told(before * (deep // 2) + "1" + after * (deep // 2), {}).isdigit()
        for times in (65, 100_000):
            assert told(before * times + "1" + after * times, {}).endswith("is nested deeper than 64")
    for chain in (" + 1", " * 1", " // 1", " - 0"):
        assert told("1" + chain * deep, {}) == str(evaluate("1" + chain * deep, {}))
        assert told("1" + chain * 100_000, {}).endswith("is nested deeper than 64")
    assert told("(" * 100_000, {}).endswith("is nested deeper than 64")
    assert told(f"max({', '.join(['1'] * 1000)})", {}) == "1"  # wide is not deep
    process.communicate()


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    """No driver here, no folder, another format of it, sizes that nothing was compiled for."""
    case = act()
    write_kernels(tmp_path, calls_of_cases([case]))
    with pytest.raises(Exception, match="mythos.act_halting on a GPU: this needs an NVIDIA GPU with its driver"):
        open_session(model_of(case), tmp_path).run(None, case.inputs)
    wide = {
        name: np.repeat(value, 2, -1) if name in ("h", "out", "weight") else value
        for name, value in case.inputs.items()
    }
    with pytest.raises(Exception, match=r"h has the shape \[1, 2, 16\], and no kernels in .* are for it: export"):
        open_session(model_of(case), tmp_path).run(None, wide)
    torn = {**case.inputs, "depth": np.zeros((1, 3), np.int32)}
    with pytest.raises(Exception, match=r"depth has the shape \[1, 3\], expected \[1, 2\] to begin with"):
        open_session(model_of(case), tmp_path).run(None, torn)
    options = ort.SessionOptions()
    with pytest.raises(Exception, match="the session has no entry mythos.kernels"):
        options.register_custom_ops_library(str(LIBRARY))
    with pytest.raises(Exception, match="kernels.json cannot be read; the bundle is damaged"):
        open_session(model_of(case), tmp_path / "no")
    document = json.loads((tmp_path / "kernels.json").read_text())
    (tmp_path / "kernels.json").write_text(json.dumps(document | {"format_version": 2}))
    with pytest.raises(Exception, match="format version 2, this library knows 4; export the model again"):
        open_session(model_of(case), tmp_path)


SPOILT: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a pointer": (
        lambda d: d["kernels"][0]["arguments"][0].update(value="nobody"),
        "takes 'nobody', which is no input or output of act_halting, nor scratch memory",
    ),
    "a kernel": (lambda d: d["plans"][0].update(launches=["nobody"]), "there is no kernel 'nobody'"),
    "an operator": (lambda d: d["calls"][0].update(operator="nobody"), "there is no operator 'nobody'"),
    "an input": (lambda d: d["calls"][0]["inputs"].append("nobody"), "act_halting has no input 'nobody'"),
    "an attribute": (
        lambda d: d["calls"][0]["attributes"].update(nobody=1),
        "act_halting has no attribute 'nobody'",
    ),
    "a file": (
        lambda d: d["kernels"][0]["binaries"][0]["cubin"].update(file="../../x"),
        "'../../x' is no name of a file in this folder",
    ),
    "no hash": (lambda d: d["kernels"][0]["binaries"][0]["cubin"].pop("sha256"), "key 'sha256' not found"),
    "a grid": (
        lambda d: d["kernels"][0].update(grid=["(" * 100_000, "1", "1"]),
        "is nested deeper than 64",
    ),
}


@pytest.mark.parametrize("what", SPOILT)
def test_what_names_nothing_is_said_when_it_is_read(what: str, tmp_path: Path) -> None:
    case = act()
    write_kernels(tmp_path, calls_of_cases([case]))
    document = json.loads((tmp_path / "kernels.json").read_text())
    spoil, words = SPOILT[what]
    spoil(document)
    (tmp_path / "kernels.json").write_text(json.dumps(document))
    with pytest.raises(Exception, match=f"{re.escape(words)}.*; export the model again"):
        open_session(model_of(case), tmp_path)


def test_an_operator_that_has_no_kernels_in_some_format_is_left_to_its_bodies() -> None:
    (plain,) = calls_of_cases([act()])
    rounded = OperatorCall("linear", {"format": "int8a8", "rows": 4})
    served = (OperatorCall("linear", {"format": "int8", "rows": 4}), plain[1])
    assert {call["operator"] for call in described([plain, served])["calls"]} == {"act_halting", "linear"}
    found = described([plain, served, (rounded, ())])
    assert [call["operator"] for call in found["calls"]] == ["act_halting"] == [o["name"] for o in found["operators"]]
    other = replace(plain[0], shapes=plain[0].shapes | {"h": (None, None, 16)})
    (both,) = described([plain, (other, plain[1])])["calls"]  # of the same plans: what differs may be anything
    assert both["trailing"]["h"] == (None,) and both["trailing"]["out"] == (8,)
