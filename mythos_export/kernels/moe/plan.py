"""The launch plans of mythos::moe on a GPU.

decode: each token reads its own chosen experts, matrix times vector. prefill: (token, slot) pairs are grouped by
expert and padded to whole blocks, so that every block of rows is one dense product with one expert's weights.
"""

from __future__ import annotations

import functools

from mythos_export.kernels.call import OperatorCall
from mythos_export.kernels.launch_plan import Argument as Arg
from mythos_export.kernels.launch_plan import KernelSpec, Plan, Scratch, next_power_of_2, pointer

_SOURCE = "mythos_export.kernels.moe.triton"

# Up to here reading an expert once per token that chose it costs less than sorting, and padding blocks of rows.
DECODE_TOKENS = 8


def plans_for(call: OperatorCall, precision: str) -> tuple[Plan, ...]:
    """The plans of one call."""
    E, D, F = (call.size("routed_down", axis) for axis in range(3))
    return plans(D, F, call.size("shared_down", 1), E, call.size("expert_index", -1), precision)


@functools.cache
def plans(D: int, F: int, Fs: int, E: int, K: int, precision: str) -> tuple[Plan, ...]:
    """For dim D, expert width F, shared width Fs (0: none), E experts of which K are chosen."""
    variant = f"D{D}-F{F}-Fs{Fs}-E{E}-K{K}"
    return _decode(D, F, Fs, K, precision, variant), _prefill(D, F, Fs, E, K, precision, variant)


def _decode(D: int, F: int, Fs: int, K: int, precision: str, variant: str) -> Plan:
    weights = [pointer(name, precision) for name in ("routed_gate_up", "shared_gate_up")]
    routing = [pointer("expert_index", "i64"), pointer("expert_weight", precision)]
    hidden = pointer("hidden", "fp32")
    shape = {"TOP_K": K, "F": F, "FS": Fs, "D": D}
    up = KernelSpec(
        f"moe_decode_up_{precision}_{variant}",
        "moe",
        f"{_SOURCE}:decode_up_kernel",
        precision,
        (pointer("x", precision), *routing, *weights, hidden),
        {**shape, "BLOCK_F": 16, "BLOCK_D": min(256, next_power_of_2(D, 16))},
        ("n", "TOP_K * cdiv(F, BLOCK_F) + cdiv(FS, BLOCK_F)", "1"),
    )
    down = KernelSpec(
        f"moe_decode_down_{precision}_{variant}",
        "moe",
        f"{_SOURCE}:decode_down_kernel",
        precision,
        (
            hidden,
            routing[0],
            pointer("routed_down", precision),
            pointer("shared_down", precision),
            pointer("out", precision),
        ),
        {**shape, "BLOCK_D": 8, "BLOCK_F": min(256, next_power_of_2(F, 16))},
        ("n", "cdiv(D, BLOCK_D)", "1"),
    )
    scratch = (Scratch("hidden", "fp32", ("n", f"{K * F + Fs}")),)
    return Plan("moe", variant, "decode", f"n <= {DECODE_TOKENS}", ("n",), (), scratch, (up, down))


def _prefill(D: int, F: int, Fs: int, E: int, K: int, precision: str, variant: str) -> Plan:
    wide = precision == "fp32"
    block_m = 32
    experts = next_power_of_2(E)
    groups = [pointer("sorted_pairs", "i32"), pointer("block_expert", "i32")]
    group = KernelSpec(
        f"moe_prefill_group_{precision}_{variant}",
        "moe",
        f"{_SOURCE}:group_kernel",
        precision,
        (pointer("expert_index", "i64"), *groups, Arg("pairs", "i32", "pairs"), Arg("blocks", "i32", "blocks")),
        # The one-hot matrix [pairs, experts] lives in registers: 4096 entries are 32 a thread.
        {"BLOCK_E": experts, "BLOCK_PAIRS": max(1, min(64, 4096 // experts)), "BLOCK_M": block_m},
        ("1", "1", "1"),
    )
    tile = {"BLOCK_M": block_m, "BLOCK_N": 32 if wide else 64, "BLOCK_K": 32, "PRECISION": "ieee"}

    def up(name: str, grouped: bool, width: int, hidden: str) -> KernelSpec:
        return KernelSpec(
            f"moe_prefill_{name}_up_{precision}_{variant}",
            "moe",
            f"{_SOURCE}:prefill_up_kernel",
            precision,
            (
                pointer("x", precision),
                pointer("gate_up", precision, f"{name}_gate_up"),
                pointer("expert_weight", precision),
                *groups,
                pointer("hidden", precision, hidden),
                Arg("rows", "i32", "pairs" if grouped else "n"),
            ),
            {"GROUPED": grouped, "TOP_K": K, "F": width, "D": D, **tile},
            ("blocks" if grouped else "cdiv(n, BLOCK_M)", "cdiv(F, BLOCK_N)", "1"),
            num_stages=2 if wide else 3,
        )

    routed_down = KernelSpec(
        f"moe_prefill_routed_down_{precision}_{variant}",
        "moe",
        f"{_SOURCE}:prefill_routed_down_kernel",
        precision,
        (
            pointer("hidden", precision, "routed_hidden"),
            pointer("down", precision, "routed_down"),
            *groups,
            pointer("routed", "fp32"),
            Arg("rows", "i32", "pairs"),
        ),
        {"F": F, "D": D, **tile},
        ("blocks", "cdiv(D, BLOCK_N)", "1"),
        num_stages=2 if wide else 3,
    )
    shared_down = KernelSpec(
        f"moe_prefill_shared_down_{precision}_{variant}",
        "moe",
        f"{_SOURCE}:prefill_shared_down_kernel",
        precision,
        (
            pointer("hidden", precision, "shared_hidden"),
            pointer("down", precision, "shared_down"),
            pointer("routed", "fp32"),
            pointer("out", precision),
            Arg("rows", "i32", "n"),
        ),
        {"TOP_K": K, "F": Fs, "D": D, **tile},
        ("cdiv(n, BLOCK_M)", "cdiv(D, BLOCK_N)", "1"),
        num_stages=2 if wide else 3,
    )
    launches = [group, up("routed", True, F, "routed_hidden"), routed_down]
    if Fs:
        launches.append(up("shared", False, Fs, "shared_hidden"))
    launches.append(shared_down)  # also adds up the slots of a token, so it runs where nothing is shared, too
    return Plan(
        "moe",
        variant,
        "prefill",
        f"n > {DECODE_TOKENS}",
        ("n",),
        # Every expert that anybody chose wastes less than one block.
        (("pairs", f"n * {K}"), ("blocks", f"pairs // {block_m} + min(pairs, {E})")),
        (
            Scratch("sorted_pairs", "i32", ("blocks", f"{block_m}")),
            Scratch("block_expert", "i32", ("blocks",)),
            Scratch("routed_hidden", precision, ("pairs", f"{F}")),
            Scratch("shared_hidden", precision, ("n", f"{Fs}")),
            Scratch("routed", "fp32", ("pairs", f"{D}")),
        ),
        tuple(launches),
    )
