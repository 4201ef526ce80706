"""Exact ties in routing: no input makes them in a model that has none, so they are planted into its router."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from golden_bundles import GOLDEN, config_of
from plants import model_of
from safetensors.torch import load_file

from mythos_export import export
from mythos_export.verify.golden import GOLDEN as CASES
from mythos_export.verify.golden import load_golden, make_golden
from mythos_model import MythosConfig, save_checkpoint


@pytest.mark.slow
def test_experts_that_a_router_cannot_tell_apart_are_no_false_alarm(tmp_path: Path) -> None:
    """Of equal ones every runner takes the first, as ONNX says and PyTorch's topk does not."""
    state, config = load_file(GOLDEN / "gqa_prefill" / "model.safetensors"), config_of("gqa_prefill")["config"]
    for name in ("recurrent.block.ffn.router.weight", "recurrent.block.ffn.router_bias"):
        state[name][1] = state[name][0]
    folder = save_checkpoint(tmp_path / "tied", MythosConfig(**config), state)
    exported = export(folder, tmp_path / "bundle")
    assert exported.parity is not None and exported.parity.passed, exported.parity
    golden = load_golden(tmp_path / "bundle" / CASES, exported.manifest.spec)
    ties = [case.margins["experts"][:, case.real] for case in golden.cases if len(case.trace)]
    assert sum(int((margins == 0).sum()) for margins in ties) > 20
    chosen = [case.trace["experts"][:, case.real] for case in golden.cases if len(case.trace)]
    split = [np.isin(experts, (0, 1)).sum(-1) == 1 for experts in chosen]  # one of the two, and not the other
    assert sum(int(each.sum()) for each in split) > 20


@pytest.mark.usefixtures("one_thread")
def test_routing_at_an_exact_tie_is_a_near_tie_and_no_failure() -> None:
    """Two experts of the same router row: whichever is chosen, nobody is wrong, and what depends on it is left out."""
    model = model_of("mla_decode")
    with torch.no_grad():
        mixture = model.recurrent.block.ffn
        for rows in (mixture.router.weight, mixture.router_bias):
            rows[1] = rows[0]
    golden = make_golden(model, "fp32")
    ties = [tie for result in golden.eager for tie in result.near_ties]
    assert all(result.problems == () for result in golden.eager)
    exact = [case for case in golden.cases if len(case.trace) and (case.margins["experts"] == 0).any()]
    assert exact and all(tie.decision.startswith("experts") for tie in ties)
