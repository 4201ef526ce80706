"""Caches that are kept where a session computes: the CPU stands in for a GPU, and every crossing is counted."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from golden_bundles import Bundles

from mythos_runtime import Model, load
from mythos_runtime.dense import DenseCache
from mythos_runtime.errors import BackendFailed, CapacityError
from mythos_runtime.stores import HOST, AddressStore, CudaMemory, Held, Store, TorchStore


class HostMemory:
    """As `CudaMemory`, of this process."""

    def __init__(self) -> None:
        self.copied, self.settled = 0, 0

    def copy(self, target: int, target_pitch: int, source: int, source_pitch: int, width: int, height: int) -> None:
        for line in range(height):
            ctypes.memmove(target + line * target_pitch, source + line * source_pitch, width)
        self.copied += width * height

    def settle(self) -> None:
        self.settled += 1


def address_store() -> AddressStore:
    def upload(array: np.ndarray) -> np.ndarray:
        return array.copy()

    return AddressStore(HostMemory(), upload, lambda held: held.value, lambda value: value.ctypes.data)


def torch_store() -> TorchStore:
    torch = pytest.importorskip("torch")
    return TorchStore(torch.from_numpy, lambda tensor: tensor.numpy())


@pytest.mark.parametrize("make", [address_store, torch_store])
def test_a_store_does_what_numpy_does(make: Any) -> None:
    """Rows of uneven length, padding anywhere, several slots before the batch."""
    store: Store = make()
    r = np.random.default_rng(0)
    shape = (2, 3, 4, 9, 5)
    ours, plain = store.empty(shape, np.dtype(np.float32)), HOST.empty(shape, np.dtype(np.float32))
    assert (ours.shape, ours.ndim, ours.nbytes) == (plain.shape, plain.ndim, plain.nbytes)
    start = r.standard_normal((2, 3, 4, 6, 5))  # of another dtype than the buffer
    store.write(ours, start)
    HOST.write(plain, start)
    chunk = r.standard_normal((2, 3, 4, 3, 5)).astype(np.float32)
    held = store.empty(chunk.shape, chunk.dtype)
    store.write(held, chunk)
    for rows, firsts, count in ((None, (6, 0), 3), ((1, 3), (2, 1), 2), ((0, 0), (8, 2), 1), ((2, 2), (4, 0), 0)):
        store.copy(ours, held, rows, firsts, count)
        HOST.copy(plain, chunk, rows, firsts, count)
        assert np.array_equal(store.read(ours, 9), plain)
    assert np.array_equal(store.read(ours, 4), plain[..., :4, :])


@pytest.fixture(params=["onnxruntime", "eager"])
def pair(request: pytest.FixtureRequest, bundles: Bundles) -> Iterator[tuple[Model, Model]]:
    """A model whose caches are in the session's own memory, and one whose caches are arrays."""
    plain, ours = (
        load(bundles["gqa_prefill"], backend=request.param, provider="cpu", engine="python") for _ in range(2)
    )
    session: Any = ours.session
    session.store = session.own_store() if request.param == "eager" else session.own_store(HostMemory())
    for model in (plain, ours):
        model.rows = None
    yield ours, plain


def test_only_tokens_and_logits_cross(pair: tuple[Model, Model], monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt, uneven chunks with padding, single tokens, a fork and a truncation: equal to the bit."""
    ours, plain = pair
    crossed = _count(ours, monkeypatch)
    r = np.random.default_rng(1)
    caches: list[Any] = [model.new_cache(3, 24) for model in (ours, plain)]
    assert isinstance(caches[0], DenseCache) and isinstance(next(iter(caches[0].past.values())), Held)
    for tokens, lengths in ((6, None), (4, [4, 0, 2]), (1, None), (1, None)):
        ids = r.integers(0, 50, (3, tokens))
        crossed.clear()
        outs = [m.forward(ids, lengths=lengths, cache=c) for m, c in zip((ours, plain), caches, strict=True)]
        assert np.array_equal(outs[0].logits, outs[1].logits) and np.array_equal(outs[0].depth, outs[1].depth)
        # Of 64 KB of cache nothing: ids, positions, lengths, four scalars; logits and depths come back.
        assert sum(crossed) <= 2 * outs[0].logits.nbytes + 64 * tokens * 3 + 200 < caches[0].nbytes
    caches = [cache.fork([2, 0]) for cache in caches]
    for cache in caches:
        cache.truncate([3, 5])
    held, expected = (cache.read() for cache in caches)
    assert held.keys() == expected.keys() and all(np.array_equal(held[name], expected[name]) for name in held)
    for cache in caches:
        cache.write(expected, [3, 5])
    ids = r.integers(0, 50, (2, 2))
    outs = [m.forward(ids, cache=c) for m, c in zip((ours, plain), caches, strict=True)]
    assert np.array_equal(outs[0].logits, outs[1].logits)


def test_a_cache_that_does_not_fit_a_device_says_so(pair: tuple[Model, Model], monkeypatch: pytest.MonkeyPatch) -> None:
    torch, ort = pytest.importorskip("torch"), pytest.importorskip("onnxruntime")

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("out of memory")  # a RuntimeError, as ONNX Runtime's

    ours, _ = pair
    monkeypatch.setattr(torch.Tensor, "new_zeros", full)
    monkeypatch.setattr(ort.OrtValue, "ortvalue_from_numpy", full)
    with pytest.raises(CapacityError, match=r"this machine does not give \(.*out of memory\); ask for less capacity"):
        ours.new_cache(3, 24)


def _count(model: Model, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of every array that goes into the session or comes out of it."""
    crossed: list[int] = []
    run = model.session.run

    def counted(inputs: Any) -> Any:
        outputs = run(inputs)
        crossed.extend(value.nbytes for value in (*inputs.values(), *outputs.values()) if not isinstance(value, Held))
        return outputs

    monkeypatch.setattr(model.session, "run", counted)
    return crossed


def test_copies_on_a_gpu_are_of_two_dimensions() -> None:
    called: list[Any] = []
    success = SimpleNamespace(cudaSuccess=0)
    cuda = SimpleNamespace(
        cudaError_t=success,
        cudaMemcpyKind=SimpleNamespace(cudaMemcpyDeviceToDevice=3),
        cudaMemcpy2DAsync=lambda *arguments: called.append(arguments) or (len(called) - 1,),
        cudaStreamSynchronize=lambda stream: called.append(stream) or (0,),
    )
    memory = CudaMemory(cuda, 7)
    memory.copy(100, 64, 200, 32, 16, 3)
    memory.settle()
    assert called == [(100, 64, 200, 32, 16, 3, 3, 7), 7]
    CudaMemory(cuda, 7, waits=False).settle()
    assert len(called) == 2
    with pytest.raises(BackendFailed, match="could not copy a part of a cache: 2"):
        memory.copy(1, 1, 1, 1, 1, 1)
