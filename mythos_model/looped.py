"""A looped model: what a family has to say of itself, and the two drivers of its loop.

    class Ouro(LoopedModel):
        def encode(self, ids, lines, past): ...       # what stands before the loop
        def advance(self, h, ...): ...                # one loop
        def answer(self, state, lines, past): ...     # what stands after it

A loop is driven by Python, where people and the trainer look at it, or by torch's `while_loop`, the form that
torch.export keeps as one control-flow node. Both call `step`, so there is one definition of an iteration.

Legend: B batch, T new tokens, S capacity of the past, N loop depths, K cache slots per loop, L slots around the loop,
C width of a cache line, D width of the state, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop

from mythos_model.attention import Past
from mythos_model.exits import Exit
from mythos_model.ops import accumulation_dtype
from mythos_model.taps import tap
from mythos_runtime.spec import MODEL, CacheGroup, LoopSpec, StateTensor, TraceTensor, model_ports

LAYERS, LOOP = "layers", "loop"


class Output(NamedTuple):
    """What one call computes.

    Attributes:
        logits: [B, T, V], float32 (float64 in a float64 model).
        depth: int32 [B, T], loops that contributed to a position; 0 for padding.
        loops: int64 [], iterations run.
        new: cache entries of the new tokens by group: `layers` [L, B, T, C], `loop` [N*K, B, T, C]. Depths that did not
            run repeat the deepest that did.
    """

    logits: Tensor
    depth: Tensor
    loops: Tensor
    new: dict[str, Tensor]


class Check(NamedTuple):
    """Something that has to hold of the weights: `value` below `bound`, or else what `meaning` says."""

    name: str
    value: float
    bound: float
    meaning: str


@dataclass
class Lines:
    """The cache lines that the layers of one part read, one after the other, and what they add.

    Attributes:
        stored: [lines, B, S, C].
        first: int64 [], the line of the first layer.
        shown: what verification calls the new entries; None where it does not look.
        chunks: [B, T, C] of every layer so far.
    """

    stored: Tensor
    first: Tensor
    shown: str | None = None
    chunks: list[Tensor] = field(default_factory=list)

    def attend(self, attention: nn.Module, x: Tensor, past: Past) -> Tensor:
        """Run a layer's attention on its own line: x [B, T, D] -> [B, T, D]."""
        index = len(self.chunks)
        y, chunk = attention(x, past, self.stored, self.first + index if index else self.first)
        if self.shown is not None:
            chunk = tap(chunk, self.shown if index == 0 and self.shown[-1] != "." else f"{self.shown}{index}")
        self.chunks.append(chunk)
        return y  # type: ignore[no-any-return]


class Carry(NamedTuple):
    """What one iteration hands to the next; every field is a tensor or a tuple of them.

    Attributes:
        iteration: int64 [], iterations run so far. A tensor and an output, so that a runtime that runs one too many is
            caught.
        h: [B, T, D], the state, float32 (float64 in a float64 model) at every precision.
        exit: the exit rule's own state.
        running: bool [], whether any position has not halted.
        new_loop: [N, B, T, C], or [N, K, B, T, C] with several slots per loop: the chunk's entries of every depth.
    """

    iteration: Tensor
    h: Tensor
    exit: Any
    running: Tensor
    new_loop: Tensor


class Context(NamedTuple):
    """What stays the same over the iterations.

    Attributes:
        encoded: [B, T, D], what stands before the loop, in the state's dtype.
        own: whatever the family prepares (`LoopedModel.prepare`).
        past: positions, lengths and rotary angles.
        stored: [N*K, B, S, C], the cache of every depth.
        limit: int64 [], the most iterations to run.
        halt_threshold: [], of the exit rule.
        every_loop: bool [], run up to the limit, whoever has halted.
    """

    encoded: Tensor
    own: Any
    past: Past
    stored: Tensor
    limit: Tensor
    halt_threshold: Tensor
    every_loop: Tensor


class LoopedModel(nn.Module, ABC):
    """Base of every family. Weights are set once, by `from_state`; the model is for inference unless it is trained."""

    family: ClassVar[str]
    config: Any
    before: int = 0
    """Layers before the loop and after it that have a cache line each."""
    after: int = 0
    slots: int = 1
    """Cache lines per loop."""

    # -- what a family says -------------------------------------------------------------------------------------------

    @classmethod
    @abstractmethod
    def from_state(cls, config: Any, state: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> Self:
        """A model in evaluation mode from the checkpoint's names; `dtype` casts the weights."""

    @abstractmethod
    def reference_state(self) -> dict[str, Tensor]:
        """The weights under the checkpoint's names. Rounded ones are the float32 values that they stand for."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Of activations and caches."""

    @property
    @abstractmethod
    def exit(self) -> Exit: ...

    @property
    @abstractmethod
    def sizes(self) -> Sizes:
        """What the bundle says of the model."""

    @abstractmethod
    def angles(self, positions: Tensor, past_lengths: Tensor) -> Past:
        """What every layer of a call shares."""

    @abstractmethod
    def encode(self, ids: Tensor, lines: Lines, past: Past) -> Tensor:
        """What stands before the loop: int64 [B, T] -> [B, T, D]."""

    def prepare(self, encoded: Tensor, depths: Tensor) -> Any:
        """What the loop needs and does not change; depths is int64 [N], 0 to N-1."""
        return None

    def begin(self, encoded: Tensor, context: Context) -> Tensor:
        """The state before the first loop, [B, T, D]."""
        return encoded.clone()

    @abstractmethod
    def advance(self, h: Tensor, iteration: Tensor, lines: Lines, context: Context) -> Tensor:
        """One loop: h [B, T, D] -> h [B, T, D], in the state's dtype."""

    @abstractmethod
    def decode(self, answer: Tensor, lines: Lines, past: Past) -> Tensor:
        """What stands after the loop: [B, T, D] in the state's dtype -> logits [B, T, V]."""

    def checks(self) -> tuple[Check, ...]:
        """What has to hold of the weights."""
        return ()

    def inner_trace(self) -> tuple[TraceTensor, ...]:
        """What the blocks show between the cache entries and the state: the choices of experts."""
        return ()

    @classmethod
    def keeps(cls, name: str) -> bool:
        """Whether the weights of a module are never rounded to integers."""
        return False

    # -- what follows from it -----------------------------------------------------------------------------------------

    @property
    def spec(self) -> LoopSpec:
        """What the bundle says of the model."""
        sizes, dtype = self.sizes, str(self.dtype).removeprefix("torch.")
        around, inside = self.before + self.after, self.slots
        caches = [CacheGroup(LAYERS, around, False, sizes.line, dtype, self.before)] if around else []
        caches.append(CacheGroup(LOOP, inside, True, sizes.line, dtype))
        flat = ("B", "T")
        h = StateTensor("h", "float32", (*flat, sizes.dim), "encoded")
        entries = [
            TraceTensor(name, dtype, (*flat, sizes.line), "value", until_halted=True) for name in self._entry_names()
        ]
        rule = self.exit.rule()
        return LoopSpec(
            family=self.family,
            vocab_size=sizes.vocabulary,
            max_seq_len=sizes.longest,
            max_output_tokens=sizes.most_output,
            trained_loops=sizes.loops,
            caches=tuple(caches),
            state=(h, *self.exit.state(sizes.dim)),
            exit=rule,
            trace=(
                *entries,
                *self.inner_trace(),
                TraceTensor("h", "float32", (*flat, sizes.dim), "value", until_halted=True),
                *self.exit.trace(sizes.dim),
            ),
            graphs={MODEL: model_ports(sizes.vocabulary, tuple(caches), rule, None)},
        )

    def exact(self) -> Self:
        """The same model in float64, with this one's own (rounded) weights."""
        return type(self).from_state(self.config, self.reference_state(), torch.float64)

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor | None = None,
        past_lengths: Tensor | None = None,
        max_loops: Tensor | int | None = None,
        halt_threshold: Tensor | float | None = None,
        early_exit: Tensor | bool = True,
        past: Mapping[str, Tensor] | None = None,
        *,
        use_while_loop: bool = False,
    ) -> Output:
        """Run the model on new tokens, with or without a cache.

        Args:
            input_ids: int64 [B, T].
            positions: int64 [B, T], absolute, -1 for padding; by default the tokens follow `past_lengths`.
            past_lengths: int64 [B], valid entries of the past; default 0.
            max_loops: int64 [], the most iterations; default the trained number. 0 runs none.
            halt_threshold: float32 [], of the exit rule; default as trained.
            early_exit: bool [], leave the loop once every position has halted. Exact without a cache; with one, later
                tokens find the deepest computed entry in place of the deeper ones.
            past: by cache group, `layers` [L, B, S, C] and `loop` [N*K, B, S, C] with N >= max_loops.
            use_while_loop: drive the loop by torch's `while_loop` operator, as torch.export needs it.
        """
        device, wide = input_ids.device, accumulation_dtype(self.dtype)
        B, T = input_ids.shape
        if past_lengths is None:
            past_lengths = torch.zeros(B, dtype=torch.int64, device=device)
        if positions is None:
            positions = past_lengths.unsqueeze(1) + torch.arange(T, device=device)
        max_loops = torch.as_tensor(self.sizes.loops if max_loops is None else max_loops, device=device)
        knob = self.exit.rule().knob("halt_threshold")
        usual = float("nan") if knob is None else knob.default
        threshold = usual if halt_threshold is None else halt_threshold
        threshold = torch.as_tensor(threshold, dtype=torch.float32, device=device)
        if past is None:
            past = self.empty_past(B, int(max_loops))

        shared = self.angles(positions, past_lengths)
        stored = past[LOOP]
        around = past[LAYERS] if LAYERS in past else stored.new_zeros(0, B, 0, stored.shape[-1])
        before = Lines(around, _scalar(0, device))
        encoded = self.encode(input_ids, before, shared).to(wide)

        depths = torch.arange(stored.shape[0] // self.slots, device=device)
        context = Context(
            encoded=encoded,
            own=self.prepare(encoded, depths),
            past=shared,
            stored=stored,
            limit=torch.minimum(max_loops, _scalar(stored.shape[0] // self.slots, device)),
            halt_threshold=threshold.to(wide),
            every_loop=~torch.as_tensor(early_exit, device=device),
        )
        carry = run_while_loop(self, context) if use_while_loop else run_python(self, context)

        after = Lines(around, _scalar(self.before, device))
        logits = self.decode(carry.exit.answer, after, shared).to(wide)
        new = {LOOP: self._fill_depths(carry)}
        if self.before + self.after:
            new = {LAYERS: torch.stack(before.chunks + after.chunks)} | new
        return Output(logits, carry.exit.depth, carry.iteration, new)

    def run(self, inputs: Mapping[str, Tensor], *, use_while_loop: bool = False) -> dict[str, Tensor]:
        """The call as a graph has it: tensors by the names of `spec.ports`, in and out."""
        ports = self.spec.ports
        given = {port.role: inputs[port.name] for port in ports.inputs if port.group is None}
        past = {str(port.group): inputs[port.name] for port in ports.inputs if port.group is not None}
        out = self(given.pop("ids"), **given, past=past, use_while_loop=use_while_loop)
        return {port.name: out.new[port.group] if port.group else getattr(out, port.role) for port in ports.outputs}

    def empty_past(self, batch: int, max_loops: int) -> dict[str, Tensor]:
        """A past that holds nothing, by cache group: `layers` [L, B, 0, C] and `loop` [max(max_loops, 1)*K, B, 0, C]."""
        weight, line, around = next(self.parameters()), self.sizes.line, self.before + self.after
        layers = {LAYERS: weight.new_zeros(around, batch, 0, line, dtype=self.dtype)} if around else {}
        return layers | {LOOP: weight.new_zeros(max(max_loops, 1) * self.slots, batch, 0, line, dtype=self.dtype)}

    def start(self, context: Context) -> Carry:
        """What stands before the first iteration."""
        h = self.begin(context.encoded, context)
        halted = context.past.positions < 0
        stored = context.stored
        lines = (stored.shape[0],) if self.slots == 1 else (stored.shape[0] // self.slots, self.slots)
        new_loop = stored.new_zeros(*lines, *halted.shape, stored.shape[-1])
        return Carry(_scalar(0, h.device), h, self.exit.start(h, halted), (~halted).any(), new_loop)

    def step(self, carry: Carry, context: Context) -> Carry:
        """One iteration of the loop."""
        iteration, following = carry.iteration, carry.iteration + 1
        lines = Lines(context.stored, iteration * self.slots if self.slots > 1 else iteration, self._shown)
        h = tap(self.advance(carry.h, iteration, lines, context), "h")
        state, running = self.exit.update(carry.exit, h, context.halt_threshold, following >= context.limit)
        chunk = lines.chunks[0] if self.slots == 1 else torch.stack(lines.chunks)
        return Carry(following, h, state, running, carry.new_loop.index_put((iteration,), chunk))

    @property
    def _shown(self) -> str:
        return "entries" if self.slots == 1 else "entries."

    def _entry_names(self) -> list[str]:
        return ["entries"] if self.slots == 1 else [f"entries.{slot}" for slot in range(self.slots)]

    def _fill_depths(self, carry: Carry) -> Tensor:
        """new_loop with the depths that did not run filled by the deepest that did (the `last` cache policy)."""
        depths = torch.arange(carry.new_loop.shape[0], device=carry.new_loop.device)
        deepest = (carry.iteration - 1).clamp(min=0)
        filled = carry.new_loop.index_select(0, torch.minimum(depths, deepest))
        return filled if self.slots == 1 else filled.flatten(0, 1)


@dataclass(frozen=True)
class Sizes:
    """The numbers of a model that its runtime needs.

    Attributes:
        vocabulary: V. dim: D, width of the state. line: C, width of a cache line.
        longest: most positions of a sequence. most_output: most new tokens of a generation.
        loops: the number of loops that it was trained with.
    """

    vocabulary: int
    dim: int
    line: int
    longest: int
    most_output: int
    loops: int


def goes_on(carry: Carry, context: Context) -> Tensor:
    """bool []: whether another iteration runs."""
    return (carry.iteration < context.limit) & (carry.running | context.every_loop)


def run_python(model: LoopedModel, context: Context) -> Carry:
    """Drive the steps from Python; `taps.recording` shows them."""
    carry = model.start(context)
    while bool(goes_on(carry, context)):
        carry = model.step(carry, context)
    return carry


def run_while_loop(model: LoopedModel, context: Context) -> Carry:
    """Drive the steps by `while_loop`."""
    first = model.start(context)
    kind, count = type(first.exit), len(first.exit)

    def whole(state: tuple[Tensor, ...]) -> Carry:
        return Carry(state[0], state[1], kind(*state[2 : 2 + count]), *state[2 + count :])

    def flat(carry: Carry) -> tuple[Tensor, ...]:
        return (carry.iteration, carry.h, *carry.exit, carry.running, carry.new_loop)

    def condition(*state: Tensor) -> Tensor:
        return goes_on(whole(state), context)

    def body(*state: Tensor) -> tuple[Tensor, ...]:
        return flat(model.step(whole(state), context))

    return whole(while_loop(condition, body, flat(first)))


def _scalar(value: Any, device: torch.device) -> Tensor:
    return torch.full((), value, dtype=torch.int64, device=device)


