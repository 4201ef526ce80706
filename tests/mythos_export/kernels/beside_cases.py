"""Generated calls of the operators that only programs for PyTorch call (`kernels.beside`): inputs and attributes."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from mythos_export.kernels.tail.reference import loop_tail as tail_reference

Array = NDArray[Any]
Drawn = tuple[dict[str, Array], dict[str, Any]]

_seeds = st.integers(0, 2**32 - 1)
_dtypes = st.sampled_from([np.float32, np.float16])
_rows = st.sampled_from([(0,), (1,), (3,), (2, 5), (40,)])
_UNDECIDED = 0.05
"""How near to its threshold no position comes: what bfloat16 makes of the sums of a row could turn it."""


@st.composite
def norms(draw: st.DrawFn) -> Drawn:
    """Rows of one value to more than a block holds, some all zero; wider than the weight, too."""
    rows, D, narrow = draw(_rows), draw(st.sampled_from([1, 16, 37, 512, 4100])), draw(_dtypes)
    r = np.random.default_rng(draw(_seeds))
    x = r.standard_normal((*rows, D)).astype(draw(st.sampled_from([narrow, np.float32])))
    x[r.random(rows) < 0.2] = 0
    return {"x": x, "weight": r.standard_normal(D).astype(narrow)}, {"eps": 1e-6}


@st.composite
def rotations(draw: st.DrawFn) -> Drawn:
    """One head to more than a block holds, of one pair to many."""
    rows, heads, pairs = draw(_rows), draw(st.sampled_from([1, 2, 7, 40])), draw(st.sampled_from([1, 4, 9, 32]))
    r = np.random.default_rng(draw(_seeds))
    angles = r.standard_normal((*rows, pairs)).astype(np.float32) * 9
    x = r.standard_normal((*rows, 2 * heads * pairs)).astype(draw(_dtypes))
    return {"x": x, "cos": np.cos(angles), "sin": np.sin(angles)}, {"heads": heads}


@st.composite
def tails(draw: st.DrawFn) -> Drawn:
    """Rows that halted before, halt now and run on; LoRA of one value and of several; one threshold or many."""
    R, D, K = draw(st.sampled_from([0, 1, 2, 40])), draw(st.sampled_from([1, 16, 37, 1100])), draw(st.integers(1, 6))
    r, dtype = np.random.default_rng(draw(_seeds)), draw(_dtypes)
    narrow = {"x": (R, D), "update": (R, D), "lora_down": (K, D), "lora_scale": (R, K), "lora_up": (K, D)}
    given = {name: r.standard_normal(shape) for name, shape in narrow.items()}
    given["lora_down"] /= D**0.5
    given["lora_up"] /= K**0.5
    inputs = {name: value.astype(dtype) for name, value in given.items()}
    wide = {"h": (R, D), "decay": (D,), "gain": (D,), "encoded": (R, D), "out": (R, D)}
    inputs |= {name: r.standard_normal(shape).astype(np.float32) for name, shape in wide.items()}
    threshold = r.choice([0.5, 0.99, 2.0], draw(st.sampled_from([(), (R,)]))).astype(np.float32)  # 2: nobody halts
    inputs |= {
        "cumulative": (r.random(R) * 1.1).astype(np.float32),
        "halted": r.random(R) < draw(st.sampled_from([0.0, 0.3, 1.0])),
        "depth": r.integers(0, 9, R, dtype=np.int32),
        "weight": (r.standard_normal((1, D)) / D).astype(np.float32),
        "bias": r.standard_normal(1).astype(np.float32),
        "threshold": np.array(threshold),
    }
    exact = {k: v.astype(np.float64) if v.dtype.kind == "f" else v for k, v in inputs.items()}
    after = tail_reference(**exact | {"halted": np.zeros(R, bool)})[2]
    near = np.abs(after - inputs["threshold"]) < _UNDECIDED
    inputs["cumulative"] += np.where(near, np.float32(2 * _UNDECIDED), np.float32(0))
    return inputs, {}


CASES = {"rms_norm": norms, "rotary_embedding": rotations, "loop_tail": tails}
