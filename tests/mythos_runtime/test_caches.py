"""Caches of loaded models: chunks, ragged batches, policies, forks, and what does not fit."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_bundles import GOLDEN, Bundles
from hypothesis import given, settings
from hypothesis import strategies as st
from prompts import prompts
from safetensors.numpy import load_file

from mythos_runtime import CapacityError, Model, RequestError, load
from mythos_runtime.dense import DenseCache


@functools.cache
def _loaded(bundle: Path) -> Model:
    """Once for all examples."""
    return load(bundle, verify="sizes")


@pytest.mark.parametrize("case", ["mla_prefill", "gqa_prefill"])
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_any_split_of_a_prompt_gives_the_golden_logits(case: str, data: st.DataObject, bundles: Bundles) -> None:
    model = _loaded(bundles[case])
    io = load_file(GOLDEN / case / "io.safetensors")
    loops = json.loads((GOLDEN / case / "case.json").read_text())["n_loops"]
    ids = io["input_ids"].astype(np.int64)
    B, T = ids.shape
    cuts = data.draw(st.sets(st.integers(1, T - 1)).map(sorted))
    cache = model.new_cache(B, T + 3, loops)
    for start, end in zip([0, *cuts], [*cuts, T], strict=True):
        out = model.forward(ids[:, start:end], cache=cache)
        assert np.abs(out.logits - io["logits"][:, start:end]).max() <= 5e-5 * np.abs(io["logits"]).max()
        assert np.array_equal(out.depth, io["halting_depth"][:, start:end])


def test_a_ragged_batch_equals_its_rows_alone(model: Model) -> None:
    rows = prompts(model, [7, 1, 4, 9, 2])
    together, alone = model.new_cache(5, 16), [model.new_cache(1, 16) for _ in rows]
    for counts in ([3, 1, 2, 4, 1], [4, 0, 2, 5, 1]):  # two chunks; the second leaves one row out
        starts = together.lengths.copy()
        ids = np.zeros((5, max(counts)), np.int64)
        for row, count in enumerate(counts):
            ids[row, :count] = rows[row][starts[row] : starts[row] + count]
        out = model.forward(ids, lengths=counts, cache=together)
        assert out.loops == out.depth.max()
        scale = np.abs(out.logits).max()
        for row, count in enumerate(counts):
            if count:
                single = model.forward(ids[row : row + 1, :count], cache=alone[row])
                assert np.abs(single.logits[0] - out.logits[row, :count]).max() <= 1e-5 * scale
                assert np.array_equal(single.depth[0], out.depth[row, :count])


def test_policies(bundles: Bundles) -> None:
    """full gives what lazy gives, to the bit; share does not, but the same whatever the chunks and the company."""
    model = load(bundles["mla_decode"])
    ids = np.array(prompts(model, [12]))
    got = {}
    for policy in ("lazy", "full", "share"):
        cache = model.new_cache(1, 12, policy=policy)
        out = model.forward(ids, cache=cache, halt_threshold=0.5)
        company = model.new_cache(2, 12, policy=policy)
        for position in range(12):
            token = np.repeat(ids[:, position : position + 1], 2, 0)
            alone = model.forward(token, cache=company, halt_threshold=0.5)
            assert np.array_equal(alone.logits[1, 0], out.logits[0, position])
        got[policy] = out
    assert np.array_equal(got["lazy"].logits, got["full"].logits)
    assert not np.array_equal(got["lazy"].logits, got["share"].logits)
    assert got["share"].policy == "share"
    with pytest.raises(RequestError, match="takes the cache policy full only, found 'lazy'"):
        load(bundles["mla_decode"], backend="eager").new_cache(1, 4, policy="lazy")


def test_the_loops_of_a_chunk_are_its_own(model: Model) -> None:
    """Those that ran for its tokens, and not those that earlier ones still have before them."""
    lazy, full = model.new_cache(1, 16), model.new_cache(1, 16, policy="full")
    for threshold, cache, loops in ((0.0, lazy, 1), (0.0, full, model.spec.trained_loops), (0.5, lazy, None)):
        out = model.forward([[1, 2]], halt_threshold=threshold, cache=cache)
        assert out.loops == (out.depth.max() if loops is None else loops)


def test_both_caches_hold_the_same(model: Model) -> None:
    """What the row graphs filled, read and written into the buffers of the whole model, and back."""
    ids, lengths = np.array(prompts(model, [9, 9])), np.array([9, 4])
    rows, dense = model.new_cache(2, 40), DenseCache(2, 40, model.spec)
    model.forward(ids, lengths=lengths, cache=rows)
    model.forward(ids, lengths=lengths, cache=dense)
    entries = rows.read()
    for name, expected in dense.read().items():
        assert np.abs(entries[name] - expected).max() <= 1e-5 * np.abs(expected).max()
    dense.write(entries, lengths)
    again = model.new_cache(2, 40)
    again.write(dense.read(), lengths)
    following = np.array(prompts(model, [3, 3], seed=1))
    expected = model.forward(following, cache=rows).logits
    assert np.array_equal(model.forward(following, cache=again).logits, expected)
    assert np.abs(model.forward(following, cache=dense).logits - expected).max() <= 1e-5 * np.abs(expected).max()
    with pytest.raises(RequestError, match="entries of layers have shape"):
        dense.write({name: array[..., :1] for name, array in entries.items()}, lengths)
    with pytest.raises(CapacityError, match="41 tokens exceed"):
        dense.write(entries, [41, 0])


def test_forks_and_truncation(model: Model) -> None:
    ids = np.array(prompts(model, [8]))
    cache = model.new_cache(1, 12)
    model.forward(ids[:, :5], cache=cache)
    fork = cache.fork([0, 0])
    expected = model.forward(ids[:, 5:], cache=cache).logits
    model.forward(np.zeros((2, 3), np.int64), cache=fork)  # a beam that is thrown away
    fork.truncate(5)
    again = model.forward(np.repeat(ids[:, 5:], 2, 0), cache=fork).logits
    assert np.abs(again - expected).max() <= 1e-5 * np.abs(expected).max()


def test_what_does_not_fit_is_refused_before_anything_is_written(model: Model) -> None:
    cache = model.new_cache(1, 4)
    model.forward([[1, 2, 3]], cache=cache)
    before = cache.read()["loop"]
    with pytest.raises(CapacityError, match="cannot take 2 more"):
        model.forward([[4, 5]], cache=cache)
    assert np.array_equal(before, cache.read()["loop"])
    assert cache.lengths.tolist() == [3]
    longest = model.spec.max_seq_len
    for wrong, error in (
        (lambda: model.new_cache(1, longest + 1), CapacityError),
        (lambda: model.forward(np.zeros((1, longest + 1), np.int64)), CapacityError),
        (lambda: model.generate([[1]], max_new_tokens=longest + 1), CapacityError),
        (lambda: model.forward([[model.spec.vocab_size]]), RequestError),
        (lambda: model.forward([[1]], cache=model.new_cache(1, 4), max_loops=1), RequestError),
        (lambda: model.generate([[1]], max_new_tokens=1, max_loops=257), RequestError),
        (lambda: model.generate([[1]], max_new_tokens=model.spec.max_output_tokens + 1), RequestError),
    ):
        with pytest.raises(error):
            wrong()


def test_arguments_of_another_kind_are_refused_in_words(model: Model) -> None:
    wrong: Any = 3
    for call, words in (
        (lambda: load(wrong), "path should be a bundle's folder, as a text or a Path, found 3"),
        (lambda: model.forward([[1]], cache=wrong), "cache should be what new_cache made, or None, found 3"),
        (lambda: model.forward(["one"]), "ids should hold integers, found text"),
        (lambda: model.forward([[None]]), "ids should hold integers, found Python objects"),
        (lambda: model.forward([[1.0]]), "ids should hold integers, found float64"),
    ):
        with pytest.raises(RequestError, match=words):
            call()


def test_what_a_pass_gives_is_shown_in_a_line(model: Model) -> None:
    shown = repr(model.forward([[1, 2]]))
    assert f"logits float32 [1, 2, {model.spec.vocab_size}]" in shown and len(shown) < 200


def test_a_cache_runs_on_the_model_that_made_it(bundles: Bundles) -> None:
    first, second = load(bundles["mla_decode"]), load(bundles["mla_decode"])
    with pytest.raises(RequestError, match="made by another model"):
        second.forward([[1]], cache=first.new_cache(1, 4))
