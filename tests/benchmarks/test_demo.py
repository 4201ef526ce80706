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


def test_bundle_eager_and_full_depth_agree_on_the_shipped_model(bundles: Bundles) -> None:
    checkpoint = load_checkpoint(folder("hops"))
    eager = MythosModel.from_state(checkpoint.config, checkpoint.state)
    questions = load_file(folder("hops") / "held_out.safetensors")
    model = mythos_runtime.load(bundles[SHIPPED_HOPS])

    sample = {name: values[::4] for name, values in questions.items()}  # 8 of every number of hops
    rows = ask(model, eager, sample, np.where(sample["hops"] <= 8, 10, 20))
    assert [row.hops for row in rows] == [*range(1, 13), 14, 16]
    for row in rows:
        assert (row.asked, row.agree) == (8, 1.0)
        assert row.eager == row.bundle == row.forced >= 0.75
        assert abs(row.depth - row.hops - 1) <= 1
        assert row.max_loops == (10 if row.hops <= 8 else 20)
    assert answers_per_second(rows[:1]) == pytest.approx((1 / rows[0].seconds, 1 / rows[0].forced_seconds))

    shallow = ask(model, eager, sample, np.full(len(sample["hops"]), 3))  # too few loops: wrong, and still the same
    assert all(row.agree == 1.0 for row in shallow)
    assert shallow[7].bundle <= 0.75 < shallow[1].bundle
