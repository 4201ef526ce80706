"""The walks that the demo has generated, not the time they took."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import mythos_runtime
from benchmarks.demo_walk import FULL, LAZY, LOCK_STEP, write_eagerly, write_walks
from mythos_export import export
from mythos_model.pretrained import folder


@pytest.mark.slow
def test_all_schedules_write_the_walks_that_eager_pytorch_writes(tmp_path: Path) -> None:
    bundle = tmp_path / "walk"
    export(folder("walk"), bundle)
    model = mythos_runtime.load(bundle, threads=1)
    stored = load_file(folder("walk") / "held_out.safetensors")
    some = np.isin(stored["level"], (0, 1, 6))
    data = {name: column[some][::8] for name, column in stored.items()}  # 4 of each

    expected = write_eagerly(data)
    for together in (1, 4):
        rows = write_walks(model, expected, data, together)
        assert [(row.level, row.walks, row.together) for row in rows] == [(level, 4, together) for level in (1, 6, 0)]
        for row in rows:
            assert row.agree == 1.0
            assert row.whole >= 0.75 and row.right > 0.8
            assert set(row.tokens_per_second) == {LAZY, FULL, LOCK_STEP}
        assert rows[0].depth < rows[2].depth < rows[1].depth
        assert abs(rows[0].depth - 2) < 0.2 and abs(rows[1].depth - 7) < 0.3
    with pytest.raises(ValueError, match="4 walks of level 1, and 5 were"):
        write_walks(model, expected, data, 5)
