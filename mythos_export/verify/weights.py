"""The weights of every artifact, held to the model's own bit by bit, through whatever packing it has.

    expected = prints(model)                      # made at the export, stored with the golden cases
    problem, weighed = compare_weights(stage, expected)

Cases visit some rows of an embedding and some experts; a hash visits all. What a graph holds is looked up by content: a
tensor as it is, transposed, or widened to float32; and what the lowering computed of weights beforehand (rotary tables,
the loop's codes) as the model computes it. What then is left over on both sides, in the same shape, was changed.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

from mythos_export.verify.compare import Problem
from mythos_export.verify.results import Weighed
from mythos_export.verify.trace import to_numpy
from mythos_model.looped import LoopedModel
from mythos_model.moe import MixtureOfExperts
from mythos_model.rows import RowParts
from mythos_runtime.row_ports import GRAPHS, MOST_LOOPS

BIT_BY_BIT = "the weights, bit by bit"  # what stands for a case's name in a failure
_SIZE = 16  # bytes of a hash
_MOST_ROWS = 1 << 14  # of a tensor whose rows are told apart
_FEW = 1 << 14  # values that are kept
_ROUNDING = 1e-6
_PART = re.compile(r"(.+)\[(\d+):(\d+)\]")  # some experts of all: `mythos_export.shards.cut`
_SMALL = 8  # elements; fewer are shapes, axes and scalars of the graph itself


@dataclass(frozen=True)
class Print:
    """A tensor's hashes.

    Attributes:
        shape: of the tensor.
        forms: of its bytes as it may be stored: as it is, transposed, widened, both.
        rows: short ones of its slices along the first axis, and transposed of those along the last; empty of large
            ones.
        experts: the mixture that the slices are experts of; None of others.
        values: of what was computed beforehand, if it is small: another library's exp may round otherwise.
    """

    shape: tuple[int, ...]
    forms: tuple[str, ...]
    rows: tuple[str, ...]
    experts: str | None = None
    values: tuple[float, ...] = ()

    @classmethod
    def of(cls, tensor: torch.Tensor) -> Print:
        array = to_numpy(tensor).squeeze()
        return cls(array.shape, tuple(_hash(form) for form in _forms(array)), _rows(array))

    @classmethod
    def of_computed(cls, tensor: torch.Tensor) -> Print:
        few = tensor.is_floating_point() and tensor.numel() <= _FEW
        return replace(cls.of(tensor), values=tuple(tensor.float().flatten().tolist()) if few else ())

    def rounds_to(self, array: np.ndarray) -> bool:
        """Whether a tensor is this one but for the last bits."""
        return bool(
            self.values
            and array.size == len(self.values)
            and array.dtype.kind in "fV"
            and np.allclose(array.astype(np.float64).ravel(), self.values, rtol=_ROUNDING, atol=_ROUNDING)
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Print:
        """The print that `to_json` gave, read back from JSON."""
        return cls(
            tuple(data["shape"]), tuple(data["forms"]), tuple(data["rows"]), data["experts"], tuple(data["values"])
        )


Prints = Mapping[str, Print]


class Weighing:
    """The print of a tensor that passes by in slices of its first axis, or as a whole.

    >>> weighing = Weighing(torch.float32, (64, 2048, 2048))
    >>> for expert in experts:
    ...     weighing.add(expert)
    >>> weighing.done()     # the print of all of them together
    """

    def __init__(self, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self._print: Print | None = None
        self._slices: list[torch.Tensor] = []
        self._rows: list[str] = []
        self._forms: list[Any] = []

    def add(self, piece: torch.Tensor) -> None:
        """The next of them."""
        if piece.numel() == math.prod(self.shape):
            self._print = Print.of(piece.reshape(self.shape))
        elif 1 in self.shape or piece.ndim < 2:  # a small one, whose print is made without the axis of 1
            self._slices.append(piece)
        else:
            array = to_numpy(piece)
            # Two hashes of the same bytes are what weighing takes. The thread ends with the piece: a child that is
            # forked later would wait for ever for a thread that it does not have.
            with ThreadPoolExecutor(1, "weighing") as beside:
                row = beside.submit(_hash, array)
                forms = list(_widened(array))
                self._forms = self._forms or [_begun(form.dtype, self.shape) for form in forms]
                for made, form in zip(self._forms, forms, strict=True):
                    made.update(_bytes(form))
            self._rows.append(row.result()[:12])

    def done(self) -> Print:
        """The tensor's print."""
        if self._slices:
            self._print = Print.of(torch.stack(self._slices))
        if self._print is not None:
            return self._print
        rows = tuple(self._rows) if len(self._rows) <= _MOST_ROWS else ()
        return Print(self.shape, tuple(made.hexdigest() for made in self._forms), rows)


def prints(model: LoopedModel, known: Prints | None = None) -> dict[str, Print]:
    """Of the model's tensors, and of what is computed of them before any token is seen; `known` are those of some."""
    mixtures = {
        f"{name}.{held}": name
        for name, module in model.named_modules()
        if isinstance(module, MixtureOfExperts)
        for held in module.state_dict()
        if held.startswith(("routed_", "router"))
    }
    known = known or {}
    found = {
        name: replace(known[name] if name in known else Print.of(tensor), experts=mixtures.get(name))
        for name, tensor in model.state_dict().items()
    }
    with torch.no_grad():
        rows = set(GRAPHS) <= set(model.spec.graphs)  # an exit rule that reads logits has none
        tables = dict(RowParts(model).named_buffers(recurse=False)) if rows else {}
        for depths in {MOST_LOOPS, model.sizes.loops}:
            encoded = torch.zeros(1, 1, model.sizes.dim)
            for number, tensor in enumerate(_tensors(model.prepare(encoded, torch.arange(depths)))):
                tables[f"the loop's own value {number + 1} at {depths} depths"] = tensor
    return found | {name: Print.of_computed(tensor) for name, tensor in tables.items()}


class Holder(Protocol):
    """Who holds weights: a stage, say."""

    def weights(self) -> Mapping[str, Mapping[str, np.ndarray]]:
        """The tensors, by file and name."""
        ...


def compare_weights(stage: Holder, expected: Prints) -> tuple[Problem | None, tuple[Weighed, ...]]:
    """The first thing that is wrong, and a line for every file that the stage holds tensors of."""
    problems: list[Problem] = []
    weighed: list[Weighed] = []
    for file, tensors in stage.weights().items():
        wrong, line = _compare(file, tensors, expected)
        problems += wrong
        weighed.append(line)
    return next(iter(problems), None), tuple(weighed)


def _compare(artifact: str, tensors: Mapping[str, np.ndarray], expected: Prints) -> tuple[list[Problem], Weighed]:
    known = {form: name for name, each in expected.items() for form in each.forms}
    seen: set[str] = set()
    left: dict[str, np.ndarray] = {}
    count, problems = 0, list[Problem]()
    for name, array in tensors.items():  # each is let go of before the next one
        if array.size < _SMALL:
            continue
        if (part := _PART.fullmatch(name)) is not None and part[1] in expected:
            count += 1
            seen.add(part[1])
            problems += _of_experts(artifact, name, array, expected[part[1]], int(part[2]))
            continue
        count, array = count + 1, array.squeeze()
        hashed = _hash(array)
        own = expected.get(name)
        owner = known.get(hashed) if own is None else name if hashed in own.forms else None
        owner = owner or next((n for n, each in expected.items() if each.rounds_to(array)), None)
        if owner is None:
            left[name] = array
        else:
            seen.add(owner)
    missing = {name: each for name, each in expected.items() if name not in seen}
    changed = {}
    for name, array in left.items():
        found = _changed(name, array, {**missing, **({name: expected[name]} if name in expected else {})})
        if found is not None:
            changed[name] = found
    equal = count - len(left) - len(problems)
    derived = tuple(name for name in left if name not in changed)
    problems += _worded(artifact, [(name, *found) for name, found in changed.items()], expected)
    return problems, Weighed(artifact, count, equal, derived)


def _of_experts(artifact: str, name: str, array: np.ndarray, whole: Print, first: int) -> list[Problem]:
    """What is wrong with a mixture's experts from `first` on."""
    if array.squeeze().shape == whole.shape:  # all of them; where there is one only, its print has rows of no experts
        wrong = [] if _hash(array.squeeze()) in whole.forms else [0]
    else:
        found = (_hash(each.squeeze())[:12] for each in array)
        wrong = [at for at, row in enumerate(found) if row not in whole.rows[first + at : first + at + 1]]
    if not wrong:
        return []
    theirs = [first + at for at in wrong[:3]]
    return [Problem(name, None, f"{artifact}: {name} is not the model's: experts {theirs} of the mixture differ")]


def _changed(name: str, array: np.ndarray, missing: Prints) -> tuple[str, list[int]] | None:
    """Which of the missing tensors this one was, and where its rows come from (-1: nowhere); None where it is none."""
    best: tuple[str, list[int]] | None = None
    for owner, each in missing.items():
        for turned in (False, True):
            shape = array.shape[::-1] if turned else array.shape
            if shape != each.shape or (turned and array.ndim != 2):
                continue
            rows = _rows(array.T if turned else array)
            at = {row: number for number, row in enumerate(each.rows)}
            places = [at.get(row, -1) for row in rows]
            held = _held((owner, places))
            # Else it was computed of weights and is something new: what that is worth, the cases tell.
            if owner == name or held >= max(_held(best), len(places) / 2, 1):
                best = owner, places
        if best is not None and best[0] == name:
            break
    return best


def _held(found: tuple[str, list[int]] | None) -> int:
    """How many rows are there."""
    return 0 if found is None else sum(place >= 0 for place in found[1])


def _worded(artifact: str, found: list[tuple[str, str, list[int]]], expected: Prints) -> list[Problem]:
    """Of experts that moved with all that is theirs, one sentence that says so; of the rest one each."""
    orders: dict[str, dict[str, list[int]]] = {}
    problems = []
    for name, owner, places in found:
        mixture = expected[owner].experts
        if mixture is not None and sorted(places) == list(range(len(places))):
            orders.setdefault(mixture, {})[owner] = places
            continue
        rows = [number for number, place in enumerate(places) if place != number]
        where = f"rows {', '.join(map(str, rows[:3]))}{' and others' if len(rows) > 3 else ''}" if rows else "its bits"
        problems.append(Problem(owner, None, f"{artifact}: {name} is not the model's {owner}: {where} differ"))
    for mixture, order in orders.items():
        theirs = {name for name, each in expected.items() if each.experts == mixture and len(set(each.rows)) > 1}
        first = next(iter(order.values()))
        if order.keys() == theirs and all(each == first for each in order.values()):
            text = (
                f"{artifact}: the experts of {mixture} are in another order ({', '.join(map(str, first))}), each with "
                "its row of the router: an equivalent model, but their numbers are not the checkpoint's"
            )
        else:
            text = f"{artifact}: experts of {mixture} are in another order in {', '.join(sorted(order))} alone"
        problems.append(Problem(mixture, None, text))
    return problems


def _forms(array: np.ndarray) -> Iterator[np.ndarray]:
    """The ways in which a tensor is stored."""
    for form in _widened(array):
        yield form
        if form.ndim == 2:
            yield form.T


def _widened(array: np.ndarray) -> Iterator[np.ndarray]:
    yield array
    if array.dtype.itemsize == 2 and array.dtype.kind in "fV":
        yield array.astype(np.float32)


def _rows(array: np.ndarray) -> tuple[str, ...]:
    if array.ndim == 0 or len(array) > _MOST_ROWS:
        return ()
    return tuple(_hash(row)[:12] for row in array)


def _begun(dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
    return hashlib.blake2b(f"{dtype} {shape}".encode(), digest_size=_SIZE)


def _bytes(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _hash(array: np.ndarray) -> str:
    made = _begun(array.dtype, array.shape)
    made.update(_bytes(array))
    return str(made.hexdigest())


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """Those in a value of named and other tuples; of one whose last columns are zeros, the others too."""
    if isinstance(value, torch.Tensor):
        yield value
        used = int(value.ne(0).any(0).sum()) if value.ndim == 2 else 0
        if value.ndim == 2 and 0 < used < value.shape[1]:
            yield value[:, :used]
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _tensors(each)
