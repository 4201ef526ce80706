"""Plants in the runtime's own cache: what they get wrong shows, and each plant is told from a sound one.

The model is a sum that anybody can check: a token's logits depend on every entry that it sees, its place and its depth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from small_spec import spec

from mythos_runtime import Model
from mythos_runtime.ports import numpy_dtype, shape_of
from mythos_runtime.stores import HOST

Patch = pytest.MonkeyPatch
Array = np.ndarray
LOOPS, VOCABULARY = 2, 10


class Sums:
    """A session whose logits are sums over what a token sees: past entries by place, slot and depth, and the chunk."""

    description, name = "sums", "sums"
    store = HOST

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        ids, positions, lengths = inputs["input_ids"], inputs["positions"], inputs["past_lengths"]
        batch, tokens = ids.shape
        loop = inputs["past_loop"]
        pasts = [inputs["past_layers"], loop.reshape(loop.shape[0] * loop.shape[1], *loop.shape[2:])]
        symbols = {"B": batch, "T": tokens, "N": len(inputs["past_loop"])}
        out = {port.name: np.zeros(shape_of(port, symbols), numpy_dtype(port.dtype)) for port in spec().ports.outputs}
        out["loops"] = np.array(int(inputs["max_loops"]))
        own = ids + 1.0
        lines = [out["new_layers"], out["new_loop"].reshape(-1, *out["new_loop"].shape[2:])]
        for new in lines:
            new[...] = own[None, :, :, None] + np.arange(len(new))[:, None, None, None] / 16
        for row in range(batch):
            seen = 0.0
            for past in pasts:
                held = past[:, row, : lengths[row], 0].astype(np.float64)
                seen += float(
                    (held * np.sqrt(2 + np.arange(held.shape[1])) * (1 + np.arange(len(held)))[:, None]).sum()
                )
            for token in range(tokens):
                if positions[row, token] < 0:
                    continue
                for new in lines:
                    weights = math.sqrt(2 + positions[row, token]) * (1 + np.arange(len(new)))
                    seen += float((new[:, row, token, 0] * weights).sum())
                out["logits"][row, token] = np.sin(seen / 64 * (1 + np.arange(VOCABULARY)))
                out["depth"][row, token] = out["loops"]
        return out


def model() -> Model:
    return Model(spec(), Sums())  # type: ignore[arg-type]


def true(sequence: Sequence[int]) -> Array:
    """The logits of a sequence's last token, without a cache."""
    return np.asarray(model().forward([list(sequence)], max_loops=LOOPS).logits[0, -1])


def wrong() -> str | None:
    """What a cache gets wrong, by sequences that grow, branch, shrink and begin anew; None where nothing is."""
    sums = model()
    cache = sums.new_cache(3, 12, LOOPS)
    rows: list[list[int]] = [[], [], []]

    def step(what: str, chunks: Sequence[Sequence[int]], of: Any, held: list[list[int]]) -> str | None:
        width = max(map(len, chunks))
        ids = [[*chunk, *[0] * (width - len(chunk))] for chunk in chunks]
        out = sums.forward(ids, lengths=[len(chunk) for chunk in chunks], cache=of)
        for row, chunk in enumerate(chunks):
            held[row] = [*held[row], *chunk]
            if chunk and not np.allclose(out.logits[row, len(chunk) - 1], true(held[row]), atol=1e-4):
                return f"{what}, row {row}"
        return None if of.lengths.tolist() == [len(row) for row in held] else f"{what}: lengths"

    found = step("a ragged prompt", [[1, 2, 3], [4], [5, 6]], cache, rows)
    found = found or step("a chunk that leaves a row out", [[7], [], [8, 9]], cache, rows)
    found = found or step("the usual step", [[1], [2], [3]], cache, rows)
    branch, branched = cache.fork([2, 0]), [rows[2].copy(), rows[0].copy()]
    found = found or step("a fork in another order", [[4], [5]], branch, branched)
    found = found or step("what was forked", [[6], [7], [8]], cache, rows)
    cut = [2, 1, 3]
    cache.truncate(cut)
    rows = [row[:length] for row, length in zip(rows, cut, strict=True)]
    found = found or step("a shorter one", [[9], [9], [1]], cache, rows)
    cache.reset([1])
    rows[1] = []
    found = found or step("a row that begins anew", [[2], [3], [4]], cache, rows)
    found = found or step("the fork again", [[2], [1]], branch, branched)
    return found


def method(name: str, plant: Callable[..., Any]) -> Callable[[Patch], None]:
    """A method of whatever class the cache is: `plant(true, cache, *arguments)`."""

    def patch(monkeypatch: Patch) -> None:
        kind = type(model().new_cache(1, 1))
        sound = getattr(kind, name)
        monkeypatch.setattr(kind, name, lambda self, *args, **named: plant(sound, self, *args, **named))

    return patch


def _one_late(sound: Any, cache: Any, new: Any, valid: Array) -> None:
    shifted = {name: np.roll(entries, 1, axis=-2) for name, entries in new.items()}
    sound(cache, shifted if valid.shape[1] > 1 else new, valid)


def _first_depth(sound: Any, cache: Any, new: Any, valid: Array) -> None:
    sound(cache, {**new, "loop": np.broadcast_to(new["loop"][:1], new["loop"].shape)}, valid)


def _without(group: str) -> Callable[..., None]:
    def plant(sound: Any, cache: Any, new: Any, valid: Array) -> None:
        sound(cache, {**new, group: np.zeros_like(new[group])}, valid)

    return plant


def _slots_swapped(sound: Any, cache: Any, new: Any, valid: Array) -> None:
    sound(cache, {**new, "layers": new["layers"][::-1]}, valid)


def _padding_counts(sound: Any, cache: Any, new: Any, valid: Array) -> None:
    sound(cache, new, valid | valid.any(1, keepdims=True))


def _left_out_counts(sound: Any, cache: Any, new: Any, valid: Array) -> None:
    sound(cache, new, np.where(valid.any(1, keepdims=True), valid, np.arange(valid.shape[1]) == 0))


def _rows_swapped(sound: Any, cache: Any, new: Any, valid: Array) -> None:
    sound(cache, {name: entries[..., ::-1, :, :] for name, entries in new.items()}, valid)


def _same_order(sound: Any, cache: Any, rows: Any = None) -> Any:
    return sound(cache, None if rows is None else sorted(rows))


def _shared(sound: Any, cache: Any, rows: Any = None) -> Any:
    copy = sound(cache, rows)
    copy.lengths = copy.lengths[:]
    first = int(np.min(rows))
    copy.past = {name: past[..., first : first + len(rows), :, :] for name, past in cache.past.items()}
    return copy


def _one_token_lost(sound: Any, cache: Any, rows: Any = None) -> Any:
    copy = sound(cache, rows)
    copy.lengths = np.maximum(copy.lengths - 1, 0)
    return copy


def _to_the_shortest(sound: Any, cache: Any, lengths: Any) -> None:
    sound(cache, int(np.min(lengths)))


def _not_at_all(sound: Any, cache: Any, *arguments: Any) -> None:
    return None


def _all_rows(sound: Any, cache: Any, rows: Any = None) -> None:
    sound(cache)


CACHE_PLANTS: dict[str, tuple[Callable[[Patch], None], str]] = {
    "entries one slot late": (method("append", _one_late), "a ragged prompt|a chunk|the usual step"),
    "only the first depth": (method("append", _first_depth), "a chunk that leaves a row out"),
    "nothing of the loop": (method("append", _without("loop")), "a chunk that leaves a row out"),
    "nothing of the layers": (method("append", _without("layers")), "a chunk that leaves a row out"),
    "slots swapped": (method("append", _slots_swapped), "a chunk that leaves a row out"),
    "padding is counted": (method("append", _padding_counts), "a ragged prompt: lengths"),
    "a row left out is counted": (method("append", _left_out_counts), "a chunk that leaves a row out: lengths"),
    "rows swapped": (method("append", _rows_swapped), "a chunk that leaves a row out"),
    "a fork keeps the order": (method("fork", _same_order), "a fork in another order"),
    "a fork shares its buffers": (method("fork", _shared), "a fork in another order|what was forked|the fork again"),
    "a fork loses a token": (method("fork", _one_token_lost), "a fork in another order"),
    "truncated to the shortest": (method("truncate", _to_the_shortest), "a shorter one"),
    "not truncated": (method("truncate", _not_at_all), "a shorter one"),
    "reset empties every row": (method("reset", _all_rows), "a row that begins anew"),
    "reset empties nothing": (method("reset", _not_at_all), "a row that begins anew"),
}


def test_a_sound_cache_gets_nothing_wrong() -> None:
    assert wrong() is None


@pytest.mark.parametrize("name", CACHE_PLANTS)
def test_a_planted_cache_is_caught_where_it_goes_wrong(name: str, monkeypatch: Patch) -> None:
    plant, where = CACHE_PLANTS[name]
    plant(monkeypatch)
    found = wrong()
    assert found is not None, f"{name} slips past"
    assert any(found.startswith(each) for each in where.split("|")), found
