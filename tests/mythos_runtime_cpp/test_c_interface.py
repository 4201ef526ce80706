"""The C interface, called as another language would, held against the Python runtime."""

from __future__ import annotations

import ctypes as c
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cpp_programs import BUILD, needs_cpp, with_bytes
from golden_bundles import Bundles

from mythos_runtime import Model, load

pytestmark = needs_cpp


class Forward(c.Structure):
    _fields_ = [
        ("max_loops", c.c_int64),
        ("halt_threshold", c.c_double),
        ("state_seed", c.c_uint64),
        ("initial_state", c.POINTER(c.c_float)),
    ]


class Options(c.Structure):
    _fields_ = [
        ("max_new_tokens", c.c_int64),
        ("temperature", c.c_double),
        ("top_k", c.c_int64),
        ("top_p", c.c_double),
        ("min_p", c.c_double),
        ("repetition_penalty", c.c_double),
        ("seed", c.c_uint64),
        ("eos", c.POINTER(c.c_int64)),
        ("eos_count", c.c_size_t),
        ("stop", c.POINTER(c.POINTER(c.c_int64))),
        ("stop_lengths", c.POINTER(c.c_size_t)),
        ("stop_count", c.c_size_t),
        ("forward", Forward),
        ("policy", c.c_char_p),
        ("speculate", c.c_int64),
        ("loops_per_token", c.c_double),
        ("latency_ms", c.c_double),
    ]


class Row(c.Structure):
    _fields_ = [
        ("token", c.c_int64),
        ("depth", c.c_int32),
        ("text", c.POINTER(c.c_char)),
        ("text_bytes", c.c_size_t),
        ("capped", c.c_int),
        ("finished", c.c_char_p),
    ]


class Counts(c.Structure):
    _fields_ = [(name, c.c_int64) for name in ("steps", "rows", "late", "drafted", "accepted")]


class Step(c.Structure):
    _fields_ = [
        ("rows", c.POINTER(Row)),
        ("row_count", c.c_size_t),
        ("loops", c.c_int64),
        ("seconds", c.c_double),
        ("counts", Counts),
    ]


OnStep = c.CFUNCTYPE(c.c_int, c.POINTER(Step), c.c_void_p)


class Library:
    """mythos_runtime.h with a bundle loaded; a call that fails raises its text."""

    def __init__(self, bundle: Path, library: Path = BUILD / "libmythos_runtime.so") -> None:
        self.dll = c.CDLL(str(library))
        self.dll.mythos_last_error.restype = self.dll.mythos_version.restype = c.c_char_p
        self.dll.mythos_default_options.restype, self.dll.mythos_default_forward_options.restype = Options, Forward
        for function in (self.dll.mythos_free, self.dll.mythos_cache_free):
            function.argtypes, function.restype = [c.c_void_p], None
        self.model = c.c_void_p()
        self.call("mythos_load", str(bundle).encode(), None, 1, 0, c.byref(self.model))

    def call(self, name: str, *arguments: Any) -> None:
        code = getattr(self.dll, name)(*arguments)
        if code:
            raise RuntimeError(code, self.dll.mythos_last_error().decode())

    def forward(
        self, ids: np.ndarray, cache: Any = None, options: Forward | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        vocabulary = c.c_int64(self.dll.mythos_vocab_size(self.model)).value
        logits, depth = np.empty((*ids.shape, vocabulary), np.float32), np.empty(ids.shape, np.int32)
        batch, tokens = (c.c_int64(size) for size in ids.shape)
        pointers = [c.c_void_p(array.ctypes.data) for array in (ids, logits, depth)]
        chosen = None if options is None else c.byref(options)
        self.call("mythos_forward", self.model, pointers[0], None, batch, tokens, chosen, cache, *pointers[1:], None)
        return logits, depth


@pytest.fixture
def bundle(bundles: Bundles, tmp_path: Path) -> Path:
    return with_bytes(bundles["hops"], tmp_path / "bundle")


@pytest.fixture
def model(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    monkeypatch.setenv("MYTHOS_OP_LIBRARY", "none")
    return load(bundle, threads=1, engine="python")


def array(values: list[int], kind: Any = c.c_int64) -> Any:
    return (kind * len(values))(*values)


def test_a_batch_with_text_a_threshold_and_stops(bundle: Path, model: Model) -> None:
    library = Library(bundle)
    prompts = [[72, 105, 195], [5, 6]]
    chosen = {"max_loops": 5, "halt_threshold": 0.5, "temperature": 1.2, "seed": 3, "eos": [7, 8]}
    plain = model.generate_all(prompts, max_new_tokens=12, **chosen)  # type: ignore[arg-type]
    stop = plain.tokens[0][3:5]
    expected = model.generate_all(prompts, max_new_tokens=12, stop=[stop, [601]], **chosen)  # type: ignore[arg-type]

    options = library.dll.mythos_default_options()
    options.max_new_tokens, options.temperature, options.seed = 12, 1.2, 3
    options.eos, options.eos_count = array([7, 8]), 2
    sequences = [array(stop), array([601])]
    options.stop = (c.POINTER(c.c_int64) * 2)(*(c.cast(each, c.POINTER(c.c_int64)) for each in sequences))
    options.stop_lengths, options.stop_count = array([2, 1], c.c_size_t), 2
    options.forward = Forward(5, 0.5, 0)
    options.policy, options.speculate = b"lazy", 2
    tokens: list[list[int]] = [[], []]
    depth: list[list[int]] = [[], []]
    text, finished = [b"", b""], ["", ""]
    counts: list[Counts] = []

    @OnStep
    def on_step(step: Any, _: Any) -> int:
        for row in range(step.contents.row_count):
            each = step.contents.rows[row]
            if each.token >= 0:
                tokens[row].append(each.token)
                depth[row].append(each.depth)
            text[row] += each.text[: each.text_bytes]
            finished[row] = each.finished.decode()
        counts.append(Counts.from_buffer_copy(step.contents.counts))
        return 0

    rows = (c.c_void_p * 2)(*(c.cast(array(prompt), c.c_void_p) for prompt in prompts))
    kept = [array(prompt) for prompt in prompts]
    rows = (c.c_void_p * 2)(*(c.addressof(each) for each in kept))
    library.call(
        "mythos_generate",
        library.model,
        rows,
        array([3, 2], c.c_size_t),
        c.c_size_t(2),
        c.byref(options),
        on_step,
        None,
    )
    assert (tokens, depth, finished) == (expected.tokens, expected.depth, expected.stop_reasons)
    last = counts[-1]
    assert 0 < last.steps < last.rows and 0 <= last.accepted <= last.drafted
    assert finished[0] == "stop" and model.tokenizer is not None
    assert [each.decode() for each in text] == [model.tokenizer.decode(row) for row in tokens]
    library.dll.mythos_free(library.model)


def test_caches_are_forked_and_cut(bundle: Path, model: Model) -> None:
    library = Library(bundle)
    ids = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.int64)
    cache, copy = c.c_void_p(), c.c_void_p()
    library.call("mythos_cache_new", library.model, c.c_int64(2), c.c_int64(8), c.c_int64(-1), None, c.byref(cache))
    ours = model.new_cache(2, 8)
    assert np.array_equal(library.forward(ids, cache)[0], model.forward(ids, cache=ours).logits)
    library.call("mythos_cache_fork", cache, array([1, 0, 1]), c.c_size_t(3), c.byref(copy))
    library.call("mythos_cache_truncate", copy, array([2, 4, 3]))
    theirs = ours.fork([1, 0, 1])
    theirs.truncate([2, 4, 3])
    more = np.array([[9], [10], [11]], np.int64)
    logits, depth = library.forward(more, copy)
    expected = model.forward(more, cache=theirs)
    assert np.array_equal(logits, expected.logits) and (depth == expected.depth).all()
    lengths, batch = array([0, 0, 0]), c.c_size_t()
    library.call("mythos_cache_lengths", copy, lengths, c.c_size_t(3), c.byref(batch))
    assert (list(lengths), batch.value) == ([3, 5, 4], 3)
    with pytest.raises(RuntimeError, match="cannot be truncated to 9"):
        library.call("mythos_cache_truncate", copy, array([1, 1, 9]))
    library.dll.mythos_free(library.model)
    library.dll.mythos_cache_free(copy)
    library.dll.mythos_cache_free(cache)


def test_whole_sequences_and_text(bundle: Path, model: Model) -> None:
    library = Library(bundle)
    ids = np.array([[1, 2, 3]], np.int64)
    never = library.dll.mythos_default_forward_options()
    assert math.isnan(never.halt_threshold)
    never.halt_threshold = math.inf
    depth = library.forward(ids, options=never)[1]
    assert (depth == model.spec.trained_loops).all()
    assert (library.forward(ids)[1] == model.forward(ids).depth).all()

    text, found, count = "né".encode(), (c.c_int64 * 2)(), c.c_size_t()
    library.call("mythos_encode", library.model, text, c.c_size_t(3), found, c.c_size_t(2), c.byref(count))
    assert (list(found), count.value) == ([110, 195], 3)
    back = c.create_string_buffer(9)
    library.call(
        "mythos_decode", library.model, array([110, 195, 169, 300]), c.c_size_t(4), back, c.c_size_t(9), c.byref(count)
    )
    assert back.raw[: count.value] == text
    with pytest.raises(RuntimeError, match="the prompt is not UTF-8"):
        library.call("mythos_encode", library.model, b"\xff", c.c_size_t(1), found, c.c_size_t(2), c.byref(count))
    assert library.dll.mythos_version().decode().count(".") == 2
    library.dll.mythos_free(library.model)
