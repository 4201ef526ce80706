"""Which implementation of an operator runs where: the order of preference, in one table.

An operator need not have them all (`Operator.lacks`), and what comes next in the order is taken. The attentions over
pages have no plug-in, and nor has any operator in the engines of the row graphs, which are given none. Operators over
int8 and int4 weights have no form for TensorRT at all, which is why that target refuses these precisions.

Nothing falls back silently. What is decided at export is recorded in the manifest (`record`) and shown by
`mythos inspect`; what is decided when a session opens stands in the session's description and in `mythos doctor`.
docs/kernels.md shows the same table; a test holds the two together.

Not in the table because it is not there: quick-deploy plug-ins of full TensorRT with ahead-of-time implementations.
Such a plug-in launches one kernel; these operators launch two to five, through scratch memory, and which ones is up to
the number of tokens. The plug-ins of `kernels/tensorrt` launch what the plans say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Implementation:
    """One way to compute an operator, and what has to be there for it to be taken."""

    name: str
    needs: str


NATIVE = Implementation("CPU kernel", "libmythos_ops, which the install builds where it finds a C++ compiler")
PORTABLE = Implementation("portable function body", "nothing: it is in model.onnx")
PLAIN = Implementation("plain PyTorch", "nothing: it is in mythos_model")
TRITON = Implementation("Triton kernels", "an NVIDIA GPU and the package triton")
DECOMPOSED = Implementation("decomposition", "nothing: it is in the graph that TensorRT is given")
PLUGIN = Implementation("plug-in with Triton kernels", "--plugins at export: experimental, it has never run")


@dataclass(frozen=True)
class Order:
    """The implementations that one runner tries, best first, and when the choice falls."""

    implementations: tuple[Implementation, ...]
    decided: str


AT_LOAD, AT_EXPORT = "when a session opens", "at export"
TENSORRT, TENSORRT_ROWS = "TensorRT", "TensorRT, row graphs"
"""The engine of the whole model, and those of the row graphs (`--rows`), which hold no plug-ins."""

ORDER: dict[str, Order] = {
    "ONNX Runtime, CPU": Order((NATIVE, PORTABLE), AT_LOAD),
    "ONNX Runtime, CUDA": Order((PORTABLE,), AT_LOAD),
    "PyTorch (model.pt2), CPU": Order((PLAIN,), AT_LOAD),
    "PyTorch (model.pt2), CUDA": Order((TRITON, PLAIN), AT_LOAD),
    TENSORRT: Order((PLUGIN, DECOMPOSED), AT_EXPORT),
    TENSORRT_ROWS: Order((DECOMPOSED,), AT_EXPORT),
}


@dataclass(frozen=True)
class Given:
    """What one runner's engines were built from: the operators of their graphs, by label, and what was asked for."""

    operators: frozenset[str]
    implementation: Implementation


def record(
    operators: Mapping[str, frozenset[Implementation]], engines: Mapping[str, Given]
) -> dict[str, dict[str, Any]]:
    """The manifest's entry `operators`: per operator and runner, what was taken, or what will be tried in which order.

    Args:
        operators: what the graphs call (`OperatorCall.label`), and what each lacks.
        engines: by runner, those that the bundle holds engines for. Nothing is said of an operator that is in none of
            a runner's graphs, or has no form for it.
    """
    found = {}
    for name, lacks in operators.items():
        held = {runner: given.implementation for runner, given in engines.items() if name in given.operators}
        found[name] = _record(lacks, held)
    return found


def _record(lacks: frozenset[Implementation], asked: Mapping[str, Implementation]) -> dict[str, Any]:
    has = {name: [i for i in order.implementations if i not in lacks] for name, order in ORDER.items()}
    runners: dict[str, Any] = {
        name: {"order": [i.name for i in has[name]], "decided": order.decided}
        for name, order in ORDER.items()
        if order.decided == AT_LOAD
    }
    for runner, implementation in asked.items():
        if not has[runner]:
            continue
        taken = implementation if implementation in has[runner] else has[runner][-1]
        passed = {i.name: f"needs {i.needs}" for i in has[runner][: has[runner].index(taken)]}
        runners[runner] = {"taken": taken.name, "passed over": passed, "decided": AT_EXPORT}
    return runners
