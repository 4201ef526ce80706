"""Exit rules: what a token's answer is made of, and when it has been looped enough.

A rule is a module (its gate has weights) with a state of its own, a NamedTuple whose fields are tensors: `answer`
[B, T, D], `halted` bool [B, T] and `depth` int32 [B, T] are in every state. Everything is float32 (float64 in a float64
model) at every precision. Names of the trace are those of the fields.
"""

from mythos_model.exits.act import Act
from mythos_model.exits.answers import Divergence, EntropyDiff, MinPDivergence, StableChoice
from mythos_model.exits.gates import Expectation, Quantile
from mythos_model.exits.rule import Exit
from mythos_model.exits.states import Converged, Fixed

__all__ = [
    "Act",
    "Converged",
    "Divergence",
    "EntropyDiff",
    "Exit",
    "Expectation",
    "Fixed",
    "MinPDivergence",
    "Quantile",
    "StableChoice",
]
