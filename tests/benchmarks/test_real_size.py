"""The benchmark of a real size: its random model computes, and its sums are those of what was measured."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.real_size.__main__ import summary
from benchmarks.real_size.random_model import CONFIG, random_model


@pytest.mark.parametrize("form", ["int4", "int8"])
def test_the_random_model_computes_and_some_tokens_leave_early(form: str) -> None:
    sizes = {"vocab_size": 128, "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 16}
    model = random_model(replace(CONFIG, **sizes, **heads), form)
    out = model(torch.arange(24).view(2, 12), halt_threshold=0.7)
    assert out.logits.shape == (2, 12, 128) and bool(out.logits.isfinite().all())
    assert 1 <= int(out.depth.min()) <= int(out.depth.max()) <= 4


def test_a_summary_holds_times_against_the_bytes_that_were_read() -> None:
    times = {"wall": 20.0, "least": 19.0, "cpu": 40.0}
    ours = {"read": [[1e9, 5e8], [2e9, 4e8]], "depth": {"1": times}, "exits": times | {"mean_depth": 2.0}, "peak": 7}
    turns = [{"load": 0.1, "ours": ours, "llama": {"wall": 30.0, "cpu": 60.0, "said": 30.0, "peak": 9}}]
    found = summary({"bytes": {"pass": 10_000_000, "head": 2_000_000}, "llama_bytes": 12_000_000}, turns)
    lines = found["wall"]["lines"]
    assert found["wall"]["read_bytes_per_second"] == 2e9 and found["cpu"]["read_bytes_per_second"] == 5e8
    assert lines["1 passes"] == {"ms": 20.0, "limit_ms": 6.0, "share": 0.3}
    assert lines["exits, 2.00 passes"]["limit_ms"] == 11.0
    assert lines["llama.cpp, dense"]["share"] == 0.2
    assert found["peak_bytes"] == {"ours": 7, "llama": 9}
