"""A spec that is no family's, and a case of it out of a random number generator: nothing of it was ever computed.

No cache around the loop, two slots in it, two choices an iteration, and a rule that halts on something else than a
summed probability.
"""

from __future__ import annotations

import numpy as np

from mythos_export.verify.cases import Case
from mythos_export.verify.trace import Answer, Trace
from mythos_runtime.ports import numpy_dtype, shape_of
from mythos_runtime.spec import (
    MODEL,
    CacheGroup,
    ExitRule,
    Knob,
    LoopSpec,
    StateTensor,
    TraceTensor,
    model_ports,
)

WIDTH, SLOTS, EXPERTS, CHOSEN, LOOPS = 6, 2, 5, 2, 4
BATCH, TOKENS, PAST = 2, 5, 3


def spec() -> LoopSpec:
    flat, wide = ("B", "T"), ("B", "T", WIDTH)
    cache = CacheGroup("loop", SLOTS, True, 4, "float32")
    rule = ExitRule("moved", "halts when it moves no more", (Knob("halt_threshold", 0.1, 0.0, None, "distance"),))
    trace = []
    for slot in range(SLOTS):
        late = slot == 1  # nobody reads what comes of the last choice of a position that has halted
        trace += [
            TraceTensor(f"entries.{slot}", "float32", ("B", "T", 4), "value", until_halted=True),
            TraceTensor(f"router.{slot}", "int64", ("B", "T", CHOSEN), "choice", until_halted=late),
            TraceTensor(f"share.{slot}", "float32", ("B", "T", CHOSEN), "chosen", late, unit=True, of=f"router.{slot}"),
        ]
    trace += [
        TraceTensor("moved", "float32", flat, "value", until_halted=True),
        TraceTensor("steps", "int32", flat, "count"),
        TraceTensor("done", "bool", flat, "halted", of="moved"),
        TraceTensor("s", "float32", wide, "value"),
    ]
    return LoopSpec(
        family="handmade",
        vocab_size=11,
        max_seq_len=32,
        max_output_tokens=8,
        trained_loops=LOOPS,
        caches=(cache,),
        state=(StateTensor("s", "float32", wide, "encoded"),),
        exit=rule,
        trace=tuple(trace),
        graphs={MODEL: model_ports(11, (cache,), rule, None)},
    )


def case(seed: int = 0) -> Case:
    """Two rows of five tokens, the last of them padding in row 0; nobody halts before the last of four loops."""
    made, rng = spec(), np.random.default_rng(seed)
    symbols = {"B": BATCH, "T": TOKENS, "P": PAST, "N": LOOPS}
    inputs = {port.name: _random(rng, port.dtype, shape_of(port, symbols)) for port in made.ports.inputs}
    outputs = {port.name: _random(rng, port.dtype, shape_of(port, symbols)) for port in made.ports.outputs}
    positions = np.arange(TOKENS) + np.zeros((BATCH, 1), np.int64)
    positions[0, -1] = -1
    inputs |= {"positions": positions, "early_exit": np.array(True), "max_loops": np.array(LOOPS)}
    outputs |= {"loops": np.array(LOOPS), "depth": np.where(positions < 0, 0, LOOPS).astype(np.int32)}
    inside = {}
    for tensor in made.trace:
        shape = (LOOPS, BATCH, TOKENS, *(dim for dim in tensor.dims if isinstance(dim, int)))
        inside[tensor.name] = _random(rng, tensor.dtype, shape)
        if tensor.kind == "choice":
            inside[tensor.name] = rng.permuted(np.broadcast_to(np.arange(EXPERTS), (*shape[:-1], EXPERTS)), axis=-1)
            inside[tensor.name] = inside[tensor.name][..., :CHOSEN]
    inside["done"] = np.broadcast_to(positions < 0, (LOOPS, BATCH, TOKENS)).copy()
    inside["done"][-1] = True
    margins = {name: np.full((LOOPS, BATCH, TOKENS), 0.5, np.float32) for name in ("router.0", "router.1", "done")}
    return Case(made, f"handmade {seed}", inputs, outputs, Trace(inside), margins)


def answer(case: Case, **changed: np.ndarray) -> Answer:
    """The truth as an answer, with some tensors of its trace (dots as two underscores) or outputs changed."""
    new = {name.replace("__", "."): array for name, array in changed.items()}
    outputs = {name: new.get(name, array) for name, array in case.outputs.items()}
    return Answer(outputs, Trace({name: new.get(name, array) for name, array in case.trace.arrays.items()}))


def _random(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    return rng.standard_normal(shape).astype(numpy_dtype(dtype))
