"""The row graphs on lines of pools (`step_lines.onnx`), driven as the row graphs are: what a call of one is given goes
into pools, and what it gives is taken out of them. The lines stand in any order, NaN is in those that are not named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from onnx import ModelProto

from mythos_export.errors import ParityError
from mythos_export.verify.stages.onnxruntime import run
from mythos_export.verify.stages.operators import Portable
from mythos_export.verify.stages.rows import Array, Rows
from mythos_export.verify.stages.stage import Bundle, load_graph
from mythos_export.verify.twin import Parts
from mythos_runtime.engine.states import first_state
from mythos_runtime.line_ports import ENCODED, INITIAL, SEEN, TOKEN, on_lines, rows_file, rows_on_lines
from mythos_runtime.ports import Port, numpy_dtype
from mythos_runtime.row_ports import ENTER, GRAPHS, LEAVE, STEP

_SPARE = 3  # lines that a call does not name


class RowLines(Portable, Rows):
    """As every ONNX runtime can run them."""

    name: ClassVar[str] = "rows, on lines"
    artifact: ClassVar[str] = rows_file(STEP)

    @classmethod
    def graphs(cls, bundle: Bundle) -> tuple[str, ...]:
        return tuple(map(on_lines, GRAPHS))

    @classmethod
    def steps(cls, models: Mapping[str, ModelProto]) -> tuple[ModelProto, ...]:
        return (models[on_lines(STEP)],)

    @classmethod
    def parts(cls, bundle: Bundle) -> Parts | None:
        return Parts(*(load_graph(bundle.folder / f"{name}.onnx").graph.node for name in cls.graphs(bundle)))

    def compute(self, graph: str, feeds: Mapping[str, Array]) -> dict[str, Array]:
        rows = len(next(feeds[port.name] for port in self.spec.graphs[graph].inputs if port.dims[0] == "R"))
        random = np.random.default_rng(rows)
        lines = random.permutation(rows + _SPARE)[:rows]
        if graph == ENTER:
            return self._enter(feeds, lines, random)
        return self._step(feeds, lines) if graph == STEP else self._leave(feeds, lines, random)

    def _enter(self, feeds: Mapping[str, Array], lines: Array, random: np.random.Generator) -> dict[str, Array]:
        own = (int(dim) for dim in self.spec.state[0].dims[2:])
        drawn = random.standard_normal((len(lines), *own)).astype(np.float32)
        got = self._on_lines(ENTER, feeds, lines, {}, {INITIAL: drawn})
        encoded = got[f"{ENCODED}_pool_next"][lines]
        wanted = {tensor.name: first_state(tensor, encoded, drawn) for tensor in self.spec.state}
        self._held(ENTER, got, lines, wanted | {TOKEN: feeds[self.spec.graphs[ENTER].of("ids").name]})
        return got | {self.spec.graphs[ENTER].of("encoded").name: encoded}

    def _step(self, feeds: Mapping[str, Array], lines: Array) -> dict[str, Array]:
        ports = self.spec.graphs[STEP]
        kept = {"encoded": ENCODED, "ids": TOKEN}
        held = {kept.get(p.role) or str(p.group): feeds[p.name] for p in ports.inputs if p.role in (*kept, "state")}
        got = self._on_lines(STEP, feeds, lines, held, {})
        after = {str(port.group): port.name for port in ports.outputs if port.role == "state_next"}
        made = {name: got[f"{name}_pool_next"][lines] for name in after}
        if not np.array_equal(got[SEEN], np.stack([made["halted"].astype(np.int32), made["depth"]], axis=1)):
            raise ParityError(f"{self.artifact} says of who has halted, and when, what its pools do not")
        return got | {after[name]: rows for name, rows in made.items()}

    def _leave(self, feeds: Mapping[str, Array], lines: Array, random: np.random.Generator) -> dict[str, Array]:
        ports, spec = self.spec.graphs[LEAVE], self.spec
        answer = feeds[ports.of("answer", spec.state[1].name).name]
        held = {spec.state[1].name: answer}
        if ports.has("ids"):
            held[TOKEN] = feeds[ports.of("ids").name]
        if spec.exit.spent is None:
            return self._on_lines(LEAVE, feeds, lines, held, {})
        early, halted = (random.random(len(lines)) < 0.5 for _ in range(2))
        spent = random.random(len(lines), np.float32) * np.float32(1.5)  # more than all, too
        held |= {spec.state[0].name: random.standard_normal(answer.shape).astype(np.float32)}
        held |= {spec.exit.spent: spent, "halted": halted}
        rest = np.where(early & ~halted, np.maximum(1 - spent, 0), 0).astype(np.float32)
        whole = {**held, spec.state[1].name: answer + rest[:, None] * held[spec.state[0].name]}
        nobody = np.zeros_like(early)
        found, wanted = (
            self._on_lines(LEAVE, feeds, lines, *given)["logits"]
            for given in ((held, {"early": early}), (whole, {"early": nobody}))
        )
        if not np.array_equal(found, wanted, equal_nan=True):
            raise ParityError(f"{rows_file(LEAVE)} does not take what is left of 1 into an early answer as numpy does")
        return self._on_lines(LEAVE, feeds, lines, held, {"early": nobody})

    def _on_lines(
        self, graph: str, feeds: Mapping[str, Array], lines: Array, held: Mapping[str, Array], own: Mapping[str, Array]
    ) -> dict[str, Array]:
        """All outputs of the graph with these rows, by name, in the pools' lines; `own`: what a row graph is not
        given."""
        ports, given = rows_on_lines(self.spec)[graph], {**feeds, **own, "lines": lines}
        for port in ports.inputs:
            if port.role == "pool":
                given[port.name] = _pool(port, lines, held.get(str(port.group)))
        got = run(self.sessions[on_lines(graph)], {p.name: given[p.name] for p in ports.inputs}, self.bundle.linked)
        spare = np.setdiff1d(np.arange(len(lines) + _SPARE), lines)
        for port in ports.outputs:
            before = given[port.name.removesuffix("_next")] if port.role == "pool_next" else None
            if before is not None and not np.array_equal(
                got[port.name][spare], before[spare], equal_nan=before.dtype.kind == "f"
            ):
                raise ParityError(f"{rows_file(graph)} writes into lines of {port.group} that it was not told of")
        return got

    def _held(self, graph: str, got: Mapping[str, Array], lines: Array, wanted: Mapping[str, Array]) -> None:
        for name, rows in wanted.items():
            if not np.array_equal(got[f"{name}_pool_next"][lines], rows, equal_nan=rows.dtype.kind == "f"):
                raise ParityError(f"{rows_file(graph)} puts another {name} into its lines than a position begins with")


def _pool(port: Port, lines: Array, rows: Array | None) -> Array:
    """A pool that holds these rows, and else nothing that anybody may read."""
    dtype = numpy_dtype(port.dtype)
    own = tuple(dim for dim in port.dims if isinstance(dim, int))
    pool = np.full((len(lines) + _SPARE, *own), np.nan if dtype.kind == "f" else 1, dtype)
    if rows is not None:
        pool[lines] = rows
    return pool
