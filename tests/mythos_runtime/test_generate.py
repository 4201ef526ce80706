"""Caches, ragged batches and generation on real bundles."""

from __future__ import annotations

import functools
import gc
import json
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from engines import ENGINES, needs_native, pool_of
from golden_bundles import GOLDEN, Bundles
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from mythos_export.cli import mythos
from mythos_model import MythosModel, load_checkpoint
from mythos_runtime import CapacityError, Model, RequestError, load
from mythos_runtime.dense import DenseCache
from mythos_runtime.engine.options import EngineOptions
from mythos_runtime.session import EngineChoice

CASES = ["mla_decode", "gqa_decode"]


@pytest.fixture(scope="module", params=ENGINES)
def kind(request: pytest.FixtureRequest) -> EngineChoice:
    kind: EngineChoice = request.param
    return kind


@pytest.fixture(scope="module", params=CASES)
def model(request: pytest.FixtureRequest, bundles: Bundles, kind: EngineChoice) -> Model:
    return load(bundles[request.param], engine=kind)


@pytest.fixture(scope="module", params=CASES)
def in_python(request: pytest.FixtureRequest, bundles: Bundles) -> Model:
    """Whose engine can be looked into."""
    return load(bundles[request.param], engine="python")


def prompts(model: Model, lengths: list[int], seed: int = 0) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(0, model.spec.vocab_size, length).tolist() for length in lengths]


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


def test_greedy_generation_is_the_same_everywhere(bundles: Bundles) -> None:
    checkpoint = load_checkpoint(GOLDEN / "hops" / "step_0001794.pt")
    eager = MythosModel.from_state(checkpoint.config, checkpoint.state)
    model = load(bundles["hops"])
    count = min(64, model.spec.max_seq_len - 8)
    rows = prompts(model, [5, 2, 8])
    ragged = model.generate_all(rows, max_new_tokens=count)
    for row, prompt in enumerate(rows):
        assert model.generate_all(prompt, max_new_tokens=count, prefill_chunk=3).tokens[0] == ragged.tokens[row]
        ids = torch.tensor([prompt])
        for token in ragged.tokens[row]:
            assert int(eager(ids).logits[0, -1].argmax()) == token
            ids = torch.cat([ids, torch.tensor([[token]])], 1)
    assert ragged.stop_reasons == ["length"] * 3


def test_sampling_is_repeatable_and_rows_do_not_disturb_each_other(model: Model) -> None:
    rows = prompts(model, [3, 5])
    options = {"max_new_tokens": 6, "temperature": 1.5, "top_k": 40, "top_p": 0.95, "seed": 7}
    first, second = model.generate_all(rows, **options), model.generate_all(rows, **options)
    assert first.tokens == second.tokens
    assert model.generate_all(rows[:1], **options).tokens[0] == first.tokens[0]
    assert model.generate_all(rows, **{**options, "seed": 8}).tokens != first.tokens


def test_ends(model: Model) -> None:
    rows = prompts(model, [3, 4])
    free = model.generate_all(rows, max_new_tokens=6).tokens
    ended = model.generate_all(rows, max_new_tokens=6, eos=free[0][1])
    at = free[0].index(free[0][1])
    assert ended.tokens[0] == free[0][: at + 1]
    assert ended.stop_reasons[0] == "eos"
    stopped = model.generate_all(rows[1], max_new_tokens=6, stop=[free[1][:2]])
    assert (stopped.tokens[0], stopped.stop_reasons) == (free[1][:2], ["stop"])


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


def test_a_fork_that_fails_leaves_nothing(in_python: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a sequence that is held, nor one that would be closed twice."""
    cache: Any = in_python.new_cache(2, 16)
    in_python.forward([[1, 2], [3, 4]], cache=cache)
    core = cache.pool.core
    fork = core.fork

    def held() -> int:
        gc.collect()
        with cache.pool.alone():
            return len(core.sequences)

    def full(sequence: Any) -> Any:
        if sequence is cache._sequences[1]:
            raise MemoryError
        return fork(sequence)

    before = held()
    with monkeypatch.context() as patch:
        patch.setattr(core, "fork", full)
        with pytest.raises(MemoryError):
            cache.fork()
    assert held() == before
    assert np.array_equal(cache.fork().read()["loop"], cache.read()["loop"])


def test_threads_with_caches_of_their_own_take_turns(model: Model) -> None:
    rows = prompts(model, [20, 17, 9, 30])

    def answer(row: int) -> np.ndarray:
        cache, logits = model.new_cache(1, 40), []
        for token in rows[row]:
            logits.append(model.forward([[token]], cache=cache).logits)
            cache.truncate(cache.lengths)
        tokens = model.generate_all([rows[row]], max_new_tokens=6).tokens[0]
        return np.append(np.concatenate(logits, 1), tokens)

    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(answer, range(4)))
    assert all(np.array_equal(found, answer(row)) for row, found in enumerate(together))


def test_a_cache_that_memory_does_not_hold_costs_the_others_nothing(
    in_python: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = np.array(prompts(in_python, [20]))
    calm, shaken = in_python.new_cache(1, 40), in_python.new_cache(1, 40)

    def refuse(pages: int) -> None:
        raise MemoryError("no more")

    for position in range(20):
        token = ids[:, position : position + 1]
        expected = in_python.forward(token, cache=calm).logits
        if position == 10:
            with monkeypatch.context() as patch:
                patch.setattr(pool_of(in_python).core.loop, "grow", refuse)
                with pytest.raises(CapacityError, match="which this machine does not give"):
                    in_python.new_cache(50, 40)
        if position == 15:
            in_python.new_cache(50, 40)
        assert np.array_equal(in_python.forward(token, cache=shaken).logits, expected)


def test_a_generation_that_is_dropped_gives_its_pages_back(in_python: Model) -> None:
    steps = in_python.generate(prompts(in_python, [5]), max_new_tokens=4)
    next(steps)
    with pool_of(in_python).alone():
        steps.close()  # as the garbage collector may, in the middle of another call
    claimed = pool_of(in_python).claimed
    with pool_of(in_python).alone():
        assert pool_of(in_python).core.loop.held <= sum(
            len(table) for each in pool_of(in_python).core.sequences for table in each.loop
        )
    assert pool_of(in_python).claimed == claimed or pool_of(in_python).claimed.loop < claimed.loop


def test_a_cache_runs_on_the_model_that_made_it(bundles: Bundles) -> None:
    first, second = load(bundles["mla_decode"]), load(bundles["mla_decode"])
    with pytest.raises(RequestError, match="made by another model"):
        second.forward([[1]], cache=first.new_cache(1, 4))


def test_memory_of_caches_that_are_gone_is_used_again(in_python: Model) -> None:
    for _ in range(5):
        cache = in_python.new_cache(2, 64)
        in_python.forward(prompts(in_python, [40, 40]), cache=cache)
        fork = cache.fork([1])
        fork.truncate(3)
        steps = in_python.generate(prompts(in_python, [5]), max_new_tokens=4)
        next(steps)
        del cache, fork, steps
    pages = pool_of(in_python).core.loop.pages
    in_python.new_cache(1, 1)
    assert pool_of(in_python).core.loop.pages == pages and pool_of(in_python).core.loop.held == 0
    assert not pool_of(in_python).core.sequences or all(not each.length for each in pool_of(in_python).core.sequences)


@needs_native
def test_memory_of_the_native_engine_is_used_again(bundles: Bundles) -> None:
    model = load(bundles["mla_decode"], engine="native")
    sizes = []
    for number in range(5):
        cache = model.new_cache(2, 64)
        model.forward(prompts(model, [40, 40]), cache=cache)
        fork = cache.fork([1])
        fork.truncate(3)
        steps = model.generate(prompts(model, [5]), max_new_tokens=4)
        next(steps)
        if number % 2:
            steps.close()
        del cache, fork, steps
        gc.collect()
        usage = model.engine().usage
        assert (usage.pages_free, usage.states_free, usage.running) == (usage.pages, usage.states, 0)
        sizes.append(usage.pages)
    assert len(set(sizes)) == 1


def test_a_budget_is_kept_and_told(bundles: Bundles) -> None:
    model = load(bundles["mla_decode"])
    prompt = prompts(model, [5])
    options = {"max_new_tokens": 24, "halt_threshold": 5.0, "max_loops": 6}
    free = model.generate_all(prompt, **options)
    assert set(free.depth[0]) == {6}
    steps = list(model.generate(prompt, loops_per_token=2.5, **options))
    depth = [int(step.depth[0]) for step in steps]
    assert np.mean(depth) <= 2.5 and max(depth[1:]) <= 3
    assert [bool(step.capped[0]) for step in steps] == [False] + [True] * 23  # the first one is the prompt's
    assert [int(step.depth[0]) for step in model.generate(prompt, latency_ms=1e-6, **options)][1:] == [1] * 23
    for wrong in ({"loops_per_token": 0.5}, {"latency_ms": -1.0}):
        with pytest.raises(RequestError, match=next(iter(wrong))):
            model.generate(prompt, **wrong)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_drafts_change_nothing(model: Model, temperature: float) -> None:
    rows = prompts(model, [5, 1, 30])
    options = {"max_new_tokens": 20, "temperature": temperature, "seed": 5, "repetition_penalty": 1.1}
    plain = model.generate_all(rows, speculate="off", **options)
    for speculate in (1, 2, "auto"):
        drafted = model.generate_all(rows, speculate=speculate, **options)
        assert (drafted.tokens, drafted.depth) == (plain.tokens, plain.depth)
    counted = model.engine(EngineOptions(most_running=1, speculate=1)).usage
    assert 0 < counted.accepted < counted.drafted


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


def test_a_closed_model_frees_its_engine(bundles: Bundles) -> None:
    with load(bundles["mla_decode"]) as model:
        engine = weakref.ref(model.session)
        cache = model.new_cache(1, 4)
        model.forward([[1, 2]], cache=cache)
    assert engine() is None
    assert cache.lengths.tolist() == [2]
    with pytest.raises(RequestError, match="closed; load it again"):
        model.forward([[1]])


def test_running_a_bundle_imports_no_torch(bundles: Bundles) -> None:
    code = (
        "import sys, mythos_runtime\n"
        f"model = mythos_runtime.load({str(bundles['mla_decode'])!r})\n"
        "model.generate_all([[1, 2]], max_new_tokens=2)\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_mythos_run_ends_with_json(bundles: Bundles) -> None:
    arguments = ["run", str(bundles["mla_decode"]), "--ids", "1,2,3", "--max-new-tokens", "5", "--json"]
    result = CliRunner().invoke(mythos, arguments)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout.splitlines()[-1])
    assert set(document) >= {"tokens", "depth", "loops", "tokens_per_second", "policy"}
    assert len(document["tokens"]) == len(document["depth"]) == 5
    for wrong in (["--prompt", "x"], [], ["--ids", "a"], ["--ids", "1", "--temperature", "-1"]):
        result = CliRunner().invoke(mythos, ["run", str(bundles["mla_decode"]), *wrong])
        assert (result.exit_code, "Traceback" in result.output) == (2, False)


def test_a_damaged_bundle_is_refused(bundles: Bundles, tmp_path: Path) -> None:
    import shutil

    for name, damage in (
        ("weights.safetensors", lambda path: path.write_bytes(path.read_bytes()[:-1])),
        ("golden.safetensors", lambda path: path.unlink()),
        ("manifest.json", lambda path: path.write_text(path.read_text()[:-20])),
        ("manifest.json", lambda path: path.write_text(path.read_text().replace('"model.onnx"', '"../model.onnx"'))),
        ("manifest.json", lambda path: path.write_text(path.read_text().replace('_version": 2', '_version": 99'))),
    ):
        copy = tmp_path / "copy"
        shutil.copytree(bundles["mla_decode"], copy)
        damage(copy / name)
        result = CliRunner().invoke(mythos, ["inspect", str(copy)])
        assert (result.exit_code, "Traceback" in result.output) == (2, False), result.output
        shutil.rmtree(copy)
