"""Launch plans: the grammar of their expressions, which a plug-in reads from an engine, and who may launch them."""

from __future__ import annotations

import json

import pytest
from interpreted_driver import ARCHITECTURE, InterpretedDriver, program_of

from mythos_export.kernels.gqa.plan import plans
from mythos_export.kernels.launch_plan import KernelSpec, Plan, evaluate
from mythos_export.kernels.plugin.launch import Launcher


def test_expressions_are_integer_arithmetic() -> None:
    assert evaluate("cdiv(n, 4) + max(1, min(n, 3)) * (n // 2 - 1)", {"n": 7}) == 2 + 3 * 2
    assert evaluate("T * heads <= 32", {"T": 3, "heads": 8}) is True


REFUSED = ["__import__('os')", "n.real", "n[0]", "2 ** 99", "'a' * 9", "max(*n)", "cdiv(1, b=2)", "[n for n in n]"]


@pytest.mark.parametrize("text", [*REFUSED, "1 +", ""])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected integers|is no expression"):
        evaluate(text, {"n": 7})


def test_plans_are_read_back_as_they_were_written() -> None:
    for plan in plans(4, 2, 8, "fp16"):
        values = json.loads(json.dumps([plan.to_json(), [spec.to_json() for spec in plan.launches]]))
        specs = {spec["name"]: KernelSpec.from_json(spec) for spec in values[1]}
        assert Plan.from_json(values[0], specs) == plan


def test_a_gpu_that_nothing_was_compiled_for_is_refused() -> None:
    program = program_of("gqa_attention", plans(4, 2, 8, "fp16"), {"scale": 1.0, "kv_heads": 2})
    driver = InterpretedDriver(program)
    Launcher(program, driver)
    driver.capability = lambda: 121  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match=f"for sm_{ARCHITECTURE}, this GPU is sm_121: export again with --sm"):
        Launcher(program, driver)
