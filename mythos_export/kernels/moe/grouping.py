"""Pairs sorted by expert: the two launches that products over grouped rows begin with, what they leave, its memory."""

from __future__ import annotations

from dataclasses import dataclass

from mythos_export.kernels.launch_plan import Argument as Arg
from mythos_export.kernels.launch_plan import KernelSpec, Scratch, next_power_of_2, pointer

_SOURCE = "mythos_export.kernels.moe.triton"
# Programs that sort the pairs: each adds up what all of them counted.
_CHUNKS = 64


@dataclass(frozen=True)
class Grouping:
    """For blocks of so many rows, each of one expert.

    Attributes:
        launches: count, then group.
        blocks: what the later kernels read: the sorted pairs, and the expert of each block.
        sizes: pairs, blocks and what leads to them, by name, from `n`.
        scratch: what both and the later kernels share.
    """

    launches: tuple[KernelSpec, KernelSpec]
    blocks: tuple[Arg, Arg]
    sizes: tuple[tuple[str, str], ...]
    scratch: tuple[Scratch, ...]


def grouping(path: str, rows: int, E: int, K: int, precision: str, variant: str) -> Grouping:
    """For E experts of which K are chosen, in a plan of this path and variant."""
    experts = next_power_of_2(E)
    # The one-hot matrix [pairs, experts] lives in registers: 4096 entries are 32 a thread.
    step = max(1, min(64, 4096 // experts))
    index, counts = pointer("expert_index", "i64"), pointer("counts", "i32")
    blocks = (pointer("sorted_pairs", "i32"), pointer("block_expert", "i32"))
    pairs, block_count, chunk = (Arg(name, "i32", name) for name in ("pairs", "blocks", "chunk"))

    def kernel(name: str, arguments: tuple[Arg, ...], more: dict[str, int | bool | str]) -> KernelSpec:
        return KernelSpec(
            f"moe_{path}_{name}_{precision}_{variant}",
            "moe",
            f"{_SOURCE}:{name}_kernel",
            precision,
            arguments,
            {"BLOCK_E": experts, "BLOCK_PAIRS": step, **more},
            ("chunks", "1", "1"),
            num_stages=1,
        )

    return Grouping(
        (
            kernel("count", (index, counts, pairs, chunk), {}),
            kernel("group", (index, counts, *blocks, pairs, block_count, chunk), {"BLOCK_M": rows}),
        ),
        blocks,
        (
            ("pairs", f"n * {K}"),
            # Every expert that anybody chose wastes less than one block.
            ("blocks", f"pairs // {rows} + min(pairs, {E})"),
            ("chunk", f"cdiv(cdiv(pairs, {_CHUNKS}), {step}) * {step}"),
            ("chunks", "cdiv(pairs, chunk)"),
        ),
        (
            Scratch("counts", "i32", ("chunks", f"{experts}")),
            Scratch("sorted_pairs", "i32", ("blocks", f"{rows}")),
            Scratch("block_expert", "i32", ("blocks",)),
        ),
    )
