"""Calls of every operator on both sides of every size that a CPU kernel is cut at, of a library that is there.

    for call in edge_calls("linear", "int4", describe(library)): call.inputs, call.attributes

The sizes are asked from the library: registers, heights of tiles, strips and panels, blocks of inputs and of keys. NaN
is wherever an operator has no business to read. `tests/mythos_export/kernels` draws more of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mythos_model.formats import FORMATS, PLAIN

Array = NDArray[Any]
Said = Mapping[str, Any]
"""What a library says of itself (`kernels.library.describe`)."""


@dataclass(frozen=True)
class EdgeCall:
    """One call: inputs and attributes by name."""

    op: str
    inputs: dict[str, Array]
    attributes: dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """Sizes to call operators with: values, inputs and outputs of a product, tokens, keys."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    columns: tuple[int, ...]
    tokens: tuple[int, ...]
    keys: tuple[int, ...]

    @classmethod
    def of(cls, said: Said) -> Sizes:
        isas = list(said["isas"].values())
        blocks = [form["block"] for form in said["formats"]]
        tiles = [form["tile"] for form in said["formats"]]
        widths = _sides(isa["width"] for isa in isas)
        strips = [size for isa in isas for size in (isa["strip"], 2 * isa["strip"])]
        heights = [size for isa in isas for size in (isa["rows"], isa["panel_rows"], isa["rounded_rows"])]
        panels = [*(isa["panel_depth"] for isa in isas), int(said["deep"])]
        key = int(said["key_block"])
        return cls(
            widths,
            _merged(widths, _sides([*panels, *blocks])),
            _merged(widths, _sides([*strips, *tiles, *(4 * tile for tile in tiles)])),
            _sides(heights),
            (0, *_sides([key, 2 * key])),
        )


def edge_calls(op: str, form: str, said: Said) -> Iterator[EdgeCall]:
    """Calls of an operator over a weight format; every size occurs, side by side with others."""
    sizes = Sizes.of(said)
    if op == "linear":
        for tokens, depth, rows in _cycled(sizes.tokens, sizes.depths, sizes.columns):
            yield _linear(form, tokens, depth, rows)
    elif op == "embedding" and not FORMATS[form].activations:  # it multiplies nothing
        for dim, rows in _cycled(sizes.widths, sizes.columns):
            yield _embedding(form, dim, rows)
    elif op == "moe":
        for tokens, depth, width, shared in _cycled(sizes.tokens, sizes.depths, (1, 15, 16, 17, 33), (0, 1, 16, 17)):
            yield _moe(form, tokens, depth, width, shared)
    elif op == "gqa_attention" and form == PLAIN:
        for tokens, keys, head, group in _cycled((*sizes.tokens, *sizes.keys[1:]), sizes.keys, sizes.widths, (1, 2, 3)):
            yield _gqa(tokens, keys, head, group)
    elif op == "mla_attention" and form == PLAIN:
        wide = sizes.widths
        lists = ((*sizes.tokens, *sizes.keys[1:]), sizes.keys, wide, wide[2:] + wide[:2], wide[5:] + wide[:5])
        for tokens, keys, nope, v, latent in _cycled(*lists):
            yield _mla(tokens, keys, nope, v, latent)
    elif op == "act_halting" and form == PLAIN:
        for tokens, dim in _cycled(sizes.tokens, sizes.widths):
            yield _act(tokens, dim)
    elif op == "rounded_line" and form == PLAIN:
        for width in sizes.columns:
            yield _rounded_line(width)


OPERATORS = ("linear", "embedding", "moe", "gqa_attention", "mla_attention", "act_halting", "rounded_line")


def _sides(boundaries: Any) -> tuple[int, ...]:
    """Every boundary, and the sizes beside it."""
    return tuple(sorted({size for each in boundaries for size in (each - 1, each, each + 1) if size > 0}))


def _merged(*lists: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted({size for sizes in lists for size in sizes}))


def _cycled(*lists: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Every value of each list once or more, side by side, and never the same neighbours all along."""
    longest = max(map(len, lists))
    for i in range(longest):
        yield tuple(values[(i + i // len(values)) % len(values)] for values in lists)


def _stored(r: np.random.Generator, form: str, name: str, *shape: int) -> dict[str, Array]:
    """NAME, and its scale where it is rounded, of random weights [..., rows, inputs] of order 1 / sqrt(inputs)."""
    *leading, rows, inputs = shape
    order = max(inputs, 1) ** -0.5
    if form == PLAIN:
        return {name: (r.standard_normal(shape) * order).astype(np.float32)}
    lay = FORMATS[form]
    if name.endswith("gate_up"):  # SwiGLU's two halves begin a tile each
        rows = 2 * -(-rows // 2 // lay.tile) * lay.tile
    tiles, blocks = -(-rows // lay.tile), -(-inputs // lay.block)
    most = {8: 127, 4: 8}[lay.bits]
    q = r.integers(-most, lay.zero or most + 1, (*leading, tiles * lay.tile, blocks * lay.block), np.int8)
    q[..., inputs:] = 0
    weight = lay.lay_out(torch.from_numpy(q)).numpy()
    scale = (r.standard_normal((*leading, tiles, blocks, lay.tile)) * order / most).astype(np.float16)
    return {name: weight, "scale" if name == "weight" else f"{name}_scale": scale}


def _activations(r: np.random.Generator, form: str, shape: tuple[int, ...]) -> Array:
    """Of order 0.3; where they are rounded, exactly what they are rounded to: a tie is nobody's mistake."""
    x = 0.3 * r.standard_normal(shape)
    lay = FORMATS[form]
    if lay.activations:
        x = np.rint(x * 256).clip(-127, 127) / 256
        x[..., :: lay.block] = 127 / 256
    return x.astype(np.float32)


def _attributes(form: str, **others: Any) -> dict[str, Any]:
    """As a node has them: it does not say what is plain."""
    return others if form == PLAIN else {**others, "format": form}


def _linear(form: str, tokens: int, depth: int, rows: int) -> EdgeCall:
    r = np.random.default_rng(depth)
    x = _activations(r, form, (tokens, depth))
    return EdgeCall("linear", {"x": x, **_stored(r, form, "weight", rows, depth)}, _attributes(form, rows=rows))


def _embedding(form: str, dim: int, rows: int) -> EdgeCall:
    r = np.random.default_rng(rows)
    inputs = {"ids": r.permutation(rows), **_stored(r, form, "weight", rows, dim)}
    return EdgeCall("embedding", inputs, _attributes(form, dim=dim))


def _moe(form: str, tokens: int, dim: int, width: int, shared: int) -> EdgeCall:
    r = np.random.default_rng(dim)
    experts, chosen = 3, 2
    weights = {
        **_stored(r, form, "routed_gate_up", experts, 2 * width, dim),
        **_stored(r, form, "routed_down", experts, dim, width),
        **_stored(r, form, "shared_gate_up", 2 * shared, dim),
        **_stored(r, form, "shared_down", dim, shared),
    }
    inputs = {
        "x": _activations(r, form, (tokens, dim)),
        "expert_index": np.stack([r.permutation(experts)[:chosen] for _ in range(tokens)]).astype(np.int64),
        "expert_weight": (r.standard_normal((tokens, chosen)) / chosen**0.5).astype(np.float32),
        **{name: weights[name] for name in sorted(weights, key=lambda name: name.endswith("_scale"))},
    }
    return EdgeCall("moe", inputs, _attributes(form))


def _cache(tokens: int, keys: int, width: int) -> dict[str, Array]:
    """Two sequences of `keys` and of no entries; NaN behind them."""
    r = np.random.default_rng(keys)
    past = r.standard_normal((2, 2, keys + 2, width)).astype(np.float32)
    past[:, 0, keys:], past[:, 1] = np.nan, np.nan
    lengths = np.array([keys, 0])
    return {
        "past": past,
        "layer": np.array(1),
        "chunk": r.standard_normal((2, tokens, width)).astype(np.float32),
        "positions": lengths[:, None] + np.arange(tokens),
        "past_lengths": lengths,
    }


def _gqa(tokens: int, keys: int, head: int, group: int) -> EdgeCall:
    q = np.random.default_rng(tokens).standard_normal((2, tokens, 2 * group, head)).astype(np.float32)
    return EdgeCall("gqa_attention", {"q": q, **_cache(tokens, keys, 4 * head)}, {"scale": 0.25, "kv_heads": 2})


def _mla(tokens: int, keys: int, nope: int, v: int, latent: int) -> EdgeCall:
    r = np.random.default_rng(tokens)
    rope, heads = 2, 2
    inputs = {
        "q_nope": r.standard_normal((2, tokens, heads, nope)).astype(np.float32),
        "q_rope": r.standard_normal((2, tokens, heads, rope)).astype(np.float32),
        **_cache(tokens, keys, latent + rope),
        "kv_up": (r.standard_normal((heads * (nope + v), latent)) / latent**0.5).astype(np.float32),
    }
    return EdgeCall("mla_attention", inputs, {"scale": 0.25, "v_head_dim": v})


def _rounded_line(width: int) -> EdgeCall:
    """Two parts of different size on many lines, whose largest values are 127 times their scale; none near a tie."""
    r = np.random.default_rng(width)
    integers = r.integers(-126, 127, (70, 2, width)) + r.uniform(-0.4, 0.4, (70, 2, width))
    integers[..., 0] = 127
    x = (integers * np.array([0.75, 2.0**-20])[:, None]).reshape(70, 2 * width).astype(np.float32)
    return EdgeCall("rounded_line", {"x": x}, {"width": width})


def _act(tokens: int, dim: int) -> EdgeCall:
    """Positions that halted before, that halt now at an exact tie, and that do not; the threshold is a position's own.

    What was summed before is so large that the new probability is lost in it, and the sum is the threshold to the bit.
    """
    r = np.random.default_rng(tokens)
    large = np.float32(1 << 26)
    summed = np.where(np.arange(tokens) % 3 == 0, large, 0.25).astype(np.float32)[None]
    inputs = {
        "h": r.standard_normal((1, tokens, dim)).astype(np.float32),
        "out": r.standard_normal((1, tokens, dim)).astype(np.float32),
        "cumulative": summed,
        "halted": np.arange(tokens)[None] % 5 == 4,
        "depth": r.integers(0, 9, (1, tokens)).astype(np.int32),
        "weight": (r.standard_normal((1, dim)) / dim**0.5).astype(np.float32),
        "bias": np.zeros(1, np.float32),
        "threshold": np.where(summed == large, large, np.float32(2.0)),
    }
    return EdgeCall("act_halting", inputs, {})
