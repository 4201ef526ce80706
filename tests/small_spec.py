"""A small spec that holds together, of no model."""

from __future__ import annotations

from mythos_runtime.row_ports import row_ports
from mythos_runtime.spec import CacheGroup, ExitRule, Knob, LoopSpec, StateTensor, TraceTensor, model_ports


def spec() -> LoopSpec:
    flat = ("B", "T")
    caches = CacheGroup("layers", 2, False, 4, "float32", 1), CacheGroup("loop", 3, True, 4, "float32")
    rule = ExitRule("act", "halts at a threshold", (Knob("halt_threshold", 0.99, None, 1e30, "a sum"),))
    state = (
        StateTensor("h", "float32", (*flat, 8), "encoded"),
        StateTensor("out", "float32", (*flat, 8), "zeros"),
        StateTensor("halted", "bool", flat, "zeros"),
        StateTensor("depth", "int32", flat, "zeros"),
    )
    return LoopSpec(
        family="toy",
        vocab_size=10,
        max_seq_len=64,
        max_output_tokens=16,
        trained_loops=4,
        caches=caches,
        state=state,
        exit=rule,
        trace=(
            TraceTensor("experts", "int64", (*flat, 2), "choice"),
            TraceTensor("weights", "float32", (*flat, 2), "chosen", of="experts"),
            TraceTensor("h", "float32", (*flat, 8), "value", until_halted=True),
            TraceTensor("sum", "float32", flat, "value"),
            TraceTensor("halted", "bool", flat, "halted", of="sum"),
        ),
        graphs={"model": model_ports(10, caches, rule, None), **row_ports(10, caches, state, rule)},
    )
