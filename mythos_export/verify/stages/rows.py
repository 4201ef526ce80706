"""The row graphs in ONNX Runtime, driven as one whole forward pass: all rows at the same depth, loop after loop.

So their outputs are the model's, and what every step computes is the trace. How the engine schedules rows is tested
where it lives; a row computes the same in any company.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import onnxruntime as ort
import torch
from onnx import ModelProto, ValueInfoProto

from mythos_export.errors import ParityError
from mythos_export.verify.stages.onnxruntime import entries_of, run, twin_session
from mythos_export.verify.stages.operators import Native, Portable
from mythos_export.verify.stages.stage import Bundle, Constants, Stage, load_graph, with_weights
from mythos_export.verify.trace import Answer, Trace, Values, names, stacked
from mythos_export.verify.twin import INSIDE, Parts, Twin
from mythos_model.cache_lines import pack, unpack
from mythos_runtime.engine.states import first_state
from mythos_runtime.errors import BackendFailed, BackendMissing
from mythos_runtime.ports import numpy_dtype
from mythos_runtime.row_ports import ENTER, GRAPHS, LEAVE, MOST_LOOPS, PAGE, STEP
from mythos_runtime.session import OpLibrary, Options
from mythos_runtime.spec import CacheGroup, LoopSpec

Array = np.ndarray
_NAN_BYTES = -1  # two of them are a bfloat16 that is none


@dataclass
class RowPages:
    """The pages of one cache group for every line of a case: line l, row b has pages of its own.

    `tables` is [lines, B, blocks], `memory` [slots, pages, PAGE, width]. What holds nothing is NaN, which of int8 lines
    is what their scales are then.
    """

    tables: Array
    memory: Array
    rounded: tuple[int, ...]

    @classmethod
    def holding(cls, past: Array, lengths: Array, tokens: int, group: CacheGroup) -> RowPages:
        """Pages of past [lines, slots, B, S, C], with room for `tokens` more."""
        lines, slots, batch = past.shape[:3]
        blocks = -(-(int(lengths.max(initial=0)) + tokens) // PAGE)
        count = lines * batch * blocks
        tables = np.random.default_rng(0).permutation(count).reshape(lines, batch, blocks)
        nothing = _NAN_BYTES if group.rounded else np.nan
        memory = np.full((slots, count, PAGE, group.page_width), nothing, group.page_dtype)
        made = cls(tables, memory, group.rounded)
        for line, row in np.ndindex(lines, batch):
            at = np.arange(int(lengths[row]))
            held = past[line, :, row, : lengths[row]]
            if group.rounded:
                held = pack(torch.from_numpy(held), group.rounded).numpy()
            memory[:, tables[line, row, at // PAGE], at % PAGE] = held
        return made

    def entries(self, line: int, slots: range, rows: Array, positions: Array) -> Array:
        """What is at these positions of these rows, [slots, r, width]."""
        pages = self.tables[line, rows, positions // PAGE]
        found = self.memory[slots.start : slots.stop][:, pages, positions % PAGE]
        return unpack(torch.from_numpy(found), self.rounded, torch.float32).numpy() if self.rounded else found


class Rows(Stage):
    """What both stages share."""

    artifact: ClassVar[str] = "step.onnx"
    generates: ClassVar[bool] = False  # the engine does, with other calls than these
    library: ClassVar[OpLibrary] = None

    def __init__(self, bundle: Bundle, whole: bool = False) -> None:
        """With `whole`, `seen` keeps every value of every call, graph by graph."""
        self.spec, self.bundle = bundle.spec, bundle
        self.seen: dict[str, list[Mapping[str, Array]]] | None = {name: [] for name in GRAPHS} if whole else None
        options = Options(threads=bundle.threads, provider="cpu", op_library=self.library)
        models = {name: load_graph(bundle.folder / f"{name}.onnx") for name in self.graphs(bundle)}
        self.taps = _tap(self.steps(models), self.spec)
        self.sessions: dict[str, ort.InferenceSession] = {}
        for name, model in models.items():
            if whole:
                _show(model, [name for node in model.graph.node for name in node.output if name])
            self.sessions[name] = twin_session(Twin(model, (), {}), bundle.folder, options, entries_of(bundle))

    @classmethod
    def graphs(cls, bundle: Bundle) -> tuple[str, ...]:
        """The files that it runs, without their ending."""
        return GRAPHS

    @classmethod
    def steps(cls, models: Mapping[str, ModelProto]) -> Sequence[ModelProto]:
        """Those among them that make up the step, in the order of the dataflow."""
        return (models[STEP],)

    @classmethod
    def open(cls, bundle: Bundle) -> Self:
        try:
            return cls(bundle)
        except BackendMissing as error:
            if cls.library is not None:
                raise
            raise BackendFailed(str(error)) from error

    @classmethod
    def takes(cls, bundle: Bundle, inputs: Mapping[str, Array]) -> bool:
        """Rows have a most number of loops, and stand behind their past; bfloat16 is not passed as numpy arrays."""
        named = {port.role: inputs[port.name] for port in bundle.spec.ports.inputs if port.group is None}
        loops, real = int(named["max_loops"]), named["positions"] >= 0
        behind = named["past_lengths"][:, None] + real.cumsum(1) - 1
        stand = np.array_equal(named["positions"][real], behind[real])
        return stand and loops <= MOST_LOOPS and all(group.dtype != "bfloat16" for group in bundle.spec.caches)

    def answer(self, inputs: Mapping[str, Array]) -> Answer:
        call = RowCall(self.spec, inputs)
        encoded = self._run(ENTER, call, {"ids": call.ids}, call.around, 0)["encoded"]
        first = {tensor.name: first_state(tensor, encoded, call.initial) for tensor in self.spec.state}
        state, loops, trace = self.looped(call, encoded, first)
        answer = state[self.spec.state[1].name]
        given = {"answer": answer, "pick": np.arange(call.rows), "ids": call.ids}
        logits = self._run(LEAVE, call, given, call.around, 0)["logits"]
        outputs = {
            "logits": call.batched(logits),
            "depth": np.where(call.valid, call.batched(state["depth"]), 0).astype(np.int32),
            "loops": np.array(loops),
        }
        return Answer(call.outputs(outputs, loops), trace)

    def looped(
        self, call: RowCall, encoded: Array, state: Mapping[str, Array]
    ) -> tuple[Mapping[str, Array], int, Trace | None]:
        """The state behind the loop, the loops that ran, and the loop from inside."""
        seen: dict[str, list[Array]] = {name: [] for name in names(self.spec)}
        loops = 0
        while loops < call.limit and (not call.early_exit or not state["halted"][call.real].all()):
            given = {"encoded": encoded, "loop": np.full(call.rows, loops), "halt_threshold": call.threshold}
            given |= {"last": np.full(call.rows, loops + 1 >= call.limit), "ids": call.ids}
            out = self._run(STEP, call, given, call.loop, loops, state)
            state = {name: out[f"state_next {name}"] for name in state}
            for name in seen:
                seen[name].append(call.batched(out[self.taps[name]]))
            loops += 1
        return state, loops, stacked(seen)

    def weights(self) -> dict[str, Mapping[str, np.ndarray]]:
        files = () if self.library is not None else [f"{graph}.onnx" for graph in self.graphs(self.bundle)]
        return {file: Constants(self.bundle.folder / file, self.bundle.linked) for file in files}

    def values(self, inputs: Mapping[str, Array], iterations: Sequence[int]) -> list[Values]:
        """Those of the rows that are no padding."""
        watched, real = type(self)(self.bundle, whole=True), RowCall(self.spec, inputs).real
        watched.answer(inputs)
        assert watched.seen is not None
        seen = {
            graph: [{name: x[real] if x.shape[:1] == real.shape else x for name, x in call.items()} for call in calls]
            for graph, calls in watched.seen.items()
        }
        steps = seen[STEP]
        return [Values(steps[i] if i < len(steps) else {}, seen[ENTER][0], seen[LEAVE][0]) for i in iterations]

    @classmethod
    def files(cls, bundle: Bundle) -> list[str]:
        return with_weights(bundle, [f"{graph}.onnx" for graph in cls.graphs(bundle)])

    @classmethod
    def parts(cls, bundle: Bundle) -> Parts | None:
        models = {name: load_graph(bundle.folder / f"{name}.onnx") for name in cls.graphs(bundle)}
        inside = [node for model in cls.steps(models) for node in model.graph.node]
        return Parts(models[ENTER].graph.node, inside, models[LEAVE].graph.node)

    def compute(self, graph: str, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs of enter, step or leave, and of what is shown inside, by name."""
        return run(self.sessions[graph], feeds, self.bundle.linked)

    def _run(
        self,
        graph: str,
        call: RowCall,
        given: Mapping[str, Array],
        pages: RowPages | None,
        line: int,
        state: Mapping[str, Array] | None = None,
    ) -> dict[str, Array]:
        """Outputs by role and group, and those that are tapped by name; the cache is written back."""
        ports = self.spec.graphs[graph]
        group = next((group for group in self.spec.caches if group.per_loop == (graph == STEP)), None)
        first, end = (0, 0) if group is None else (group.before if graph == LEAVE else 0, group.slots)
        feeds: dict[str, Array] = {}
        slots = iter(range(first, end))
        for port in ports.inputs:
            if port.role == "cache":
                assert pages is not None
                feeds[port.name] = pages.memory[next(slots)]
            elif port.role == "state":
                assert state is not None
                feeds[port.name] = state[str(port.group)]
            else:
                assert pages is not None or port.role in given
                place = {} if pages is None else call.place | {"tables": pages.tables[line]}
                feeds[port.name] = ({**place, **given}[port.role]).astype(port.dtype)
        got = self.compute(graph, feeds)
        if self.seen is not None:
            self.seen[graph].append(got)
        slots = iter(range(first, end))
        for port in ports.outputs:
            if port.role == "cache_next":
                assert pages is not None
                pages.memory[next(slots)] = got[port.name]
        roles = {port.role if port.group is None else f"{port.role} {port.group}": port.name for port in ports.outputs}
        return got | {role: got[name] for role, name in roles.items() if not role.startswith("cache")}


class RowCall:
    """A case of the whole model as rows: its tokens one behind the other, padding as padding."""

    def __init__(self, spec: LoopSpec, inputs: Mapping[str, Array]) -> None:
        self.spec = spec
        values = {port.role: inputs[port.name] for port in spec.ports.inputs if port.group is None}
        pasts = {group.name: inputs[spec.ports.of("past", group.name).name] for group in spec.caches}
        self.positions, self.lengths = values["positions"], values["past_lengths"]
        self.batch, self.tokens = self.positions.shape
        self.rows, self.valid = self.positions.size, self.positions >= 0
        self.real = self.valid.ravel()
        self.ids = values["ids"].ravel()
        self.early_exit = bool(values["early_exit"])
        threshold = values.get("halt_threshold", np.array(0, np.float32))
        self.threshold = np.full(self.rows, threshold, np.float32)
        initial = values.get("initial_state")
        self.initial = None if initial is None else initial.reshape(self.rows, -1)
        owner = np.repeat(np.arange(self.batch), self.tokens)
        self.place = {"position": self.positions.ravel(), "span": np.where(self.real, owner, -1)}
        self.around: RowPages | None = None
        for group in spec.caches:
            past = pasts[group.name]
            lines = past.shape[0] if group.per_loop else 1
            held = past.reshape(lines, group.slots, *past.shape[-3:])
            made = RowPages.holding(held, self.lengths, self.tokens, group)
            if group.per_loop:
                self.loop, self.depths = made, lines
            else:
                self.around = made
        self.limit = min(int(values["max_loops"]), self.depths)

    def batched(self, rows: Array) -> Array:
        """[r, ...] -> [B, T, ...]."""
        return rows.reshape(self.batch, self.tokens, *rows.shape[1:])

    def outputs(self, values: dict[str, Array], loops: int) -> dict[str, Array]:
        """By port; depths that did not run repeat the last one, as the model's graph has it."""
        out = {}
        for port in self.spec.ports.outputs:
            if port.group is None:
                out[port.name] = values[port.role]
                continue
            group = self.spec.cache(port.group)
            pages = self.loop if group is not None and group.per_loop else self.around
            assert group is not None and pages is not None
            lines = [self._new(pages, line, group.slots) for line in range(loops if group.per_loop else 1)]
            zeros = np.zeros((group.slots, self.batch, self.tokens, group.width), numpy_dtype(group.dtype))
            last = lines[-1] if lines else zeros
            if group.per_loop:
                every = np.stack(lines + [last] * (self.depths - loops))
                out[port.name] = every.reshape(*every.shape[: 1 if group.slots == 1 else 2], *every.shape[2:])
            else:
                out[port.name] = last
        return out

    def _new(self, pages: RowPages, line: int, slots: int) -> Array:
        """The entries of the tokens [slots, B, T, width], zeros for padding."""
        owner, at = np.nonzero(self.valid)
        found = pages.entries(line, range(slots), owner, self.positions[owner, at])
        out = np.zeros((slots, self.batch, self.tokens, found.shape[-1]), found.dtype)
        out[:, owner, at] = found
        return out


def _tap(models: Sequence[ModelProto], spec: LoopSpec) -> dict[str, str]:
    """Make outputs of what the trace shows; its name -> the graph's. Raises ParityError."""
    made = [{name for node in model.graph.node for name in node.output} for model in models]
    ports = {str(port.group): port.name for port in spec.graphs[STEP].outputs if port.role == "state_next"}
    taps = {}
    for name in names(spec):
        taps[name] = INSIDE + name if any(INSIDE + name in produced for produced in made) else ports.get(name, "")
        if not taps[name]:
            raise ParityError(f"cannot look inside the step: it computes nothing named {INSIDE}{name}")
    for model, produced in zip(models, made, strict=True):
        _show(model, [value for value in taps.values() if value in produced])
    return taps


def _show(model: ModelProto, values: Iterable[str]) -> None:
    """Make outputs of values that are none yet."""
    shown = {port.name for port in model.graph.output}
    model.graph.output.extend(ValueInfoProto(name=name) for name in values if name not in shown)


class RowBodies(Portable, Rows):
    """The row graphs as every ONNX runtime can run them."""

    name: ClassVar[str] = "rows"


class RowKernels(Native, Rows):
    """The row graphs with this project's own CPU kernels."""

    name: ClassVar[str] = "rows, CPU kernels"
