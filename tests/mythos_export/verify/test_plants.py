"""What used to slip past is caught by the golden cases: plants in the eager model."""

from __future__ import annotations

import pytest
from plants import PLANTS, Patch, found, outputs
from torch import Tensor

from mythos_export.kernels.library import cuts
from mythos_export.verify.coverage import missed
from mythos_export.verify.golden import Golden
from mythos_model import LoopedModel

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_model_itself_passes_and_every_boundary_is_hit(made: tuple[LoopedModel, Golden]) -> None:
    model, golden = made
    assert found(model, golden) is None
    assert not missed(golden.coverage)
    assert all(not row.missed for row in golden.coverage), golden.coverage  # of these weights, all can be reached
    assert {row.parameter for row in golden.coverage} == golden.boundaries.keys()
    assert golden.text is not None and len(golden.text.prompt) < cuts().keys < len(golden.text.prompt) + 8


def test_few_loops_are_run(made: tuple[LoopedModel, Golden]) -> None:
    """The price of a case is its iterations: all of them together are few times the trained depth."""
    _, golden = made
    assert sum(len(case.trace) for case in golden.cases) <= 12 * golden.spec.trained_loops + 40


@pytest.mark.parametrize("name", PLANTS)
def test_a_plant_is_caught_by_the_golden_cases(name: str, made: tuple[LoopedModel, Golden], monkeypatch: Patch) -> None:
    model, golden = made
    PLANTS[name](monkeypatch)
    problem = found(model, golden)
    assert problem is not None, f"{name} slips past"
    if name.startswith("depth"):
        assert problem.tensor in ("depth", "new_loop")
    if name.startswith("halting"):
        assert problem.tensor == "halted" and "where by the exit rule it" in problem.text


@pytest.mark.parametrize("loop", [1, 2, 3])
def test_leaving_in_any_loop_with_more_allowed_is_covered(
    loop: int, made: tuple[LoopedModel, Golden], monkeypatch: Patch
) -> None:
    model, golden = made

    def change(inputs: dict[str, Tensor], found: dict[str, Tensor]) -> None:
        if int(found["loops"]) == loop < int(inputs["max_loops"]):
            found["logits"] = found["logits"] + 0.05

    outputs(change)(monkeypatch)
    problem = found(model, golden)
    assert problem is not None and problem.tensor == "logits"
