"""The demo's figures on some of its questions; what it says of time is not tested."""

from __future__ import annotations

import numpy as np
import pytest
from golden_bundles import SHIPPED_HOPS, Bundles
from safetensors.numpy import load_file

import mythos_runtime
from benchmarks.demo import answers_per_second, ask
from mythos_model import MythosModel, load_checkpoint
from mythos_model.pretrained import folder


@pytest.mark.parametrize(("hops", "max_loops"), [(1, 10), (8, 10), (12, 20)])
def test_bundle_eager_and_full_depth_agree_on_the_shipped_model(hops: int, max_loops: int, bundles: Bundles) -> None:
    checkpoint = load_checkpoint(folder("hops"))
    eager = MythosModel.from_state(checkpoint.config, checkpoint.state)
    questions = load_file(folder("hops") / "held_out.safetensors")
    model = mythos_runtime.load(bundles[SHIPPED_HOPS])

    mine = np.flatnonzero(questions["hops"] == hops)[:16]
    row = ask(model, eager, {name: values[mine] for name, values in questions.items()}, max_loops)
    assert (row.hops, row.asked, row.agree) == (hops, 16, 1.0)
    assert row.eager == row.bundle == row.forced >= 0.9
    assert hops + 0.5 < row.depth < hops + 1.5
    if hops <= 8:
        assert answers_per_second([row]) == pytest.approx((1 / row.seconds, 1 / row.forced_seconds))
