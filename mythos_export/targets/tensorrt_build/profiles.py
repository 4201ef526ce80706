"""Optimization profiles from the ranges a user gives.

    inputs = graph_inputs(Path("bundle/model.onnx"))            # [("input_ids", ("batch", "tokens")), ...]
    profiles_for(inputs, batch=Range.parse("1:1:8", "--batch"), tokens=Range.parse("1:128:512", "--tokens"),
                 context=Range.parse("0:1024:4096", "--context"), loops=Range(1, 16, 16))

A profile says which shapes an engine accepts (min..max) and which one it is tuned for (opt). Two are made: `prefill`
(any number of tokens, any past, the empty one included) and `decode` (one token behind a past that is not empty).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mythos_export.errors import TargetError

Dims = tuple[int | str, ...]
Shape = tuple[int, ...]

#: The symbolic dimensions that the exported graph may have; anything else has no range.
SYMBOLS = ("batch", "tokens", "past", "loops")
ROW_SYMBOLS = ("rows", "spans", "wanted", "blocks", "pages")


@dataclass(frozen=True)
class Range:
    """min <= opt <= max of one dimension; `opt` is what the engine is tuned for."""

    min: int
    opt: int
    max: int

    def __post_init__(self) -> None:
        if not self.min <= self.opt <= self.max:
            raise TargetError(
                f"the range {self} is not ordered: expected min <= opt <= max, as in 1:{max(1, self.opt)}:{self.max}"
            )

    def __str__(self) -> str:
        return f"{self.min}:{self.opt}:{self.max}"

    @classmethod
    def parse(cls, text: str, option: str) -> Range:
        """`min:opt:max`, or one number for a fixed size. `option` names the command-line option in the error."""
        parts = text.split(":")
        if len(parts) not in (1, 3) or not all(part.strip().isdecimal() for part in parts):
            raise TargetError(
                f"{option} {text!r} is not a range: expected min:opt:max (as in 1:1:8) or one number, not negative"
            )
        numbers = [int(part) for part in parts]
        try:
            return cls(*numbers) if len(numbers) == 3 else cls(numbers[0], numbers[0], numbers[0])
        except TargetError as error:
            raise TargetError(f"{option}: {error}") from error


@dataclass(frozen=True)
class Profile:
    """Shapes of every network input: `shapes[name] = (min, opt, max)`.

    `values` holds the same for inputs whose VALUE TensorRT may need while it computes shapes (only `max_loops` can be
    one: it is when the graph sizes a tensor by it).
    """

    name: str
    shapes: Mapping[str, tuple[Shape, Shape, Shape]]
    values: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "shapes": {name: [list(shape) for shape in triple] for name, triple in self.shapes.items()},
            "values": {name: list(triple) for name, triple in self.values.items()},
        }


def row_profile(inputs: Iterable[tuple[str, Dims]], rows: Range, blocks: Range, pages: Range) -> Profile:
    """The profile of a row graph.

    Args:
        rows: of a call; as many spans, and logits that are wanted, at most.
        blocks: of a table. pages: that a cache has.
    """
    few = Range(1, rows.opt, rows.max)
    sizes = {"rows": rows, "spans": few, "wanted": few, "blocks": blocks, "pages": pages}
    return Profile("rows", {name: _resolve(name, dims, sizes) for name, dims in inputs})


def check_ranges(batch: Range, tokens: Range, context: Range, loops: Range, max_seq_len: int | None) -> None:
    """Raises TargetError for ranges that no call fits, or that the model has not: what `profiles_for` asks of them."""
    for option, given in (("--batch", batch), ("--tokens", tokens), ("--loops", loops)):
        if given.min < 1:
            raise TargetError(f"{option} {given}: the smallest must be at least 1; write 1:{given.opt or 1}:...")
    if context.min < 0:
        raise TargetError(f"--context {context}: the smallest must be at least 0 (an empty past)")
    if max_seq_len is None:
        return
    for option, given in (("--tokens", tokens), ("--context", context)):
        if given.max > max_seq_len:
            raise TargetError(
                f"{option} {given} goes beyond the model's max_seq_len of {max_seq_len}; "
                f"lower its maximum to {max_seq_len}, or raise max_seq_len in the model's configuration"
            )


def _resolve(name: str, dims: Dims, sizes: Mapping[str, Range]) -> tuple[Shape, Shape, Shape]:
    for dim in dims:
        if isinstance(dim, str) and dim not in sizes:
            raise TargetError(
                f"input {name!r} has the dynamic dimension {dim!r}, for which there is no range; "
                f"a graph for TensorRT may only have {', '.join((*SYMBOLS, *ROW_SYMBOLS))}"
            )

    def at(end: str) -> Shape:
        return tuple(dim if isinstance(dim, int) else getattr(sizes[dim], end) for dim in dims)

    return at("min"), at("opt"), at("max")


def profiles_for(
    inputs: Iterable[tuple[str, Dims]],
    *,
    batch: Range,
    tokens: Range,
    context: Range,
    loops: Range,
    max_seq_len: int | None = None,
) -> list[Profile]:
    """Profiles `prefill` and, where `context` allows a past at all, `decode`.

    `inputs`: (name, dims) of the ONNX graph, where a dim is a number or one of `SYMBOLS`. `loops` is the range of the
    loop depths that the cache holds, `context` of the past's capacity. Raises `TargetError` for ranges that
    contradict each other, the model's `max_seq_len`, or the graph.
    """
    check_ranges(batch, tokens, context, loops, max_seq_len)
    inputs = list(inputs)
    # A prompt starts with an empty past whatever the context's minimum is; a decoded token always has one behind it.
    chosen = {"prefill": (tokens, Range(0, context.opt, context.max))}
    if context.max > 0:
        chosen["decode"] = (Range(1, 1, 1), Range(max(1, context.min), max(1, context.opt), context.max))
    profiles = []
    for name, (token_range, past_range) in chosen.items():
        sizes = {"batch": batch, "tokens": token_range, "past": past_range, "loops": loops}
        shapes = {input_name: _resolve(input_name, dims, sizes) for input_name, dims in inputs}
        values = {"max_loops": (0, loops.opt, loops.max)} if "max_loops" in shapes else {}
        profiles.append(Profile(name, shapes, values))
    return profiles
