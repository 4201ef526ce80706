"""A looped model: what a family has to say of itself, and what follows from it.

    class Ouro(LoopedModel):
        def encode(self, ids, lines, past): ...       # what stands before the loop
        def advance(self, h, ...): ...                # one loop
        def finish(self, answer, lines, past): ...    # the layers behind it
        def readout(self, x): ...                     # the head

Legend: B batch, T new tokens, S capacity of the past, N loop depths, K cache slots per loop, L slots around the loop,
C width of a cache line, D width of the state, V vocabulary.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from mythos_model.attention import Attention, Past
from mythos_model.drivers import run_python, run_while_loop
from mythos_model.errors import ModelError
from mythos_model.exact import widened
from mythos_model.exits import Exit
from mythos_model.ops import accumulation_dtype
from mythos_model.quantized import Quantized, plain_state
from mythos_model.state import Call, Carry, Check, Context, Lines, Output, Sizes
from mythos_model.taps import tap
from mythos_model.weights import Sources
from mythos_runtime import noise
from mythos_runtime.row_ports import row_ports
from mythos_runtime.spec import MODEL, CacheGroup, LoopSpec, StateTensor, TraceTensor, model_ports

LAYERS, LOOP = "layers", "loop"
_LARGE = 1 << 28  # weights, above which float64 copies of all of them are too much


class LoopedModel(nn.Module, ABC):
    """Base of every family. Weights are set once, by `from_state`; the model is for inference unless it is trained."""

    family: ClassVar[str]
    config: Any
    before: int = 0
    """Layers before the loop and after it that have a cache line each."""
    after: int = 0
    slots: int = 1
    """Cache lines per loop."""
    reads_tokens: bool = False
    """Whether layers in the loop or behind it read the tokens (`per_token`), beside the state."""

    # -- what a family says -------------------------------------------------------------------------------------------

    @classmethod
    def from_state(cls, config: Any, state: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> Self:
        """A model in evaluation mode from the checkpoint's names; `dtype` casts the weights."""
        return cls.assigned(config, cls.sources(config, state), dtype)

    @classmethod
    def sources(cls, config: Any, state: Mapping[str, Tensor]) -> Sources:
        """The model's own tensors, made of those of a checkpoint as they are asked for."""
        return Sources.plain(state)

    def reference_state(self) -> dict[str, Tensor]:
        """The weights under the checkpoint's names. Rounded ones are the float32 values that they stand for."""
        return plain_state(self)

    @property
    def dtype(self) -> torch.dtype:
        """Of activations and caches."""
        return next(self.parameters()).dtype

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

    def per_token(self, ids: Tensor) -> Any:
        """What layers read of the tokens themselves, int64 [B, T]; they find it as `past.tokens`."""
        return None

    def prepare(self, encoded: Tensor, depths: Tensor) -> Any:
        """What the loop needs and does not change; depths is int64 [N], 0 to N-1."""
        return None

    @property
    def initial(self) -> StateTensor | None:
        """The state before the first loop, where it is drawn; else it is what stands before the loop."""
        return None

    @abstractmethod
    def advance(self, h: Tensor, iteration: Tensor, lines: Lines, context: Context) -> Tensor:
        """One loop: h [B, T, D] -> h [B, T, D], in the state's dtype."""

    @abstractmethod
    def finish(self, answer: Tensor, lines: Lines, past: Past) -> Tensor:
        """The layers behind the loop: [B, T, D] in the state's dtype -> [B, T, D]."""

    @abstractmethod
    def readout(self, x: Tensor) -> Tensor:
        """The head: [..., D] -> logits [..., V]."""

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
        parts = self.rounded_parts
        caches = [CacheGroup(LAYERS, around, False, sizes.line, dtype, self.before, parts)] if around else []
        caches.append(CacheGroup(LOOP, inside, True, sizes.line, dtype, rounded=parts))
        flat = ("B", "T")
        h = self.initial or StateTensor("h", "float32", (*flat, sizes.dim), "encoded")
        entries = [
            TraceTensor(name, dtype, (*flat, sizes.line), "value", until_halted=True) for name in self.entry_names()
        ]
        first = "encoded" if self.initial is None else "initial"
        rule, state = self.exit.rule(), (h, *self.exit.state(sizes.dim, first))
        graphs = {MODEL: model_ports(sizes.vocabulary, tuple(caches), rule, self.initial)}
        if not self.exit.reads_logits:
            graphs |= row_ports(sizes.vocabulary, tuple(caches), state, rule, self.reads_tokens)
        return LoopSpec(
            family=self.family,
            vocab_size=sizes.vocabulary,
            max_seq_len=sizes.longest,
            max_output_tokens=sizes.most_output,
            trained_loops=sizes.loops,
            caches=tuple(caches),
            state=state,
            exit=rule,
            trace=(
                *entries,
                *self.inner_trace(),
                TraceTensor("h", "float32", (*flat, sizes.dim), "value", until_halted=True),
                *self.exit.trace(sizes.dim),
            ),
            graphs=graphs,
        )

    @classmethod
    def assigned(cls, config: Any, state: Mapping[str, Tensor], dtype: torch.dtype | None) -> Self:
        """A model in evaluation mode that holds these tensors, which carry its own names, cast to `dtype`; without one
        they keep theirs, mixed ones becoming the widest among them."""
        if dtype is None:
            dtype = functools.reduce(torch.promote_types, {tensor.dtype for tensor in state.values()})
        model = cls.structure(config, dtype)
        model.load_state_dict({name: tensor.to(dtype) for name, tensor in state.items()}, assign=True)
        return model.requires_grad_(False).eval()

    @classmethod
    def structure(cls, config: Any, dtype: torch.dtype) -> Self:
        """The model without weights, in evaluation mode: what it holds has shapes and a dtype, and no values."""
        with torch.device("meta"):
            model = cls(config)
        return model.to(dtype).requires_grad_(False).eval()

    def unrounded(self) -> Self:
        """The same model with the values that its rounded weights stand for, which are then not made anew at every use:
        itself where it has none, or where they would take much memory."""
        if not any(isinstance(module, Quantized) for module in self.modules()) or self.size > _LARGE:
            return self
        if self.rounds_activations:
            return self
        plain = type(self).from_state(self.config, self.reference_state(), torch.float32)
        return plain.with_int8_cache(bool(self.rounded_parts))

    def with_int8_cache(self, rounds: bool = True) -> Self:
        """This model, whose caches are from now on rounded to int8 (`mythos_model.cache_lines`), or are not.

        Raises:
            ModelError: it computes in less than float32, where rounded lines would be rounded once more; or its layers
                are none of `mythos_model.attention`, and nobody would round.
        """
        if rounds and self.dtype not in (torch.float32, torch.float64):
            raise ModelError(
                f"int8 caches are of models that compute in float32, and this one computes in {self.dtype}; load it in "
                "float32, or keep its caches as they are"
            )
        layers = [module for module in self.modules() if isinstance(module, Attention)]
        kinds = {tuple(layer.parts) for layer in layers}
        if rounds and [sum(parts) for parts in kinds] != [self.sizes.line]:
            raise ModelError(
                f"the caches of {self.family} cannot be int8: its {len(layers)} layers of mythos_model.attention do "
                "not fill lines of one kind; leave --cache out"
            )
        for layer in layers:
            layer.int8_cache = rounds
        return self

    @property
    def rounded_parts(self) -> tuple[int, ...]:
        """The widths of a cache line's parts where lines are rounded to int8, else nothing; the same in all layers."""
        layers = [module for module in self.modules() if isinstance(module, Attention)]
        return tuple(layers[0].parts) if layers and layers[0].int8_cache else ()

    @property
    def size(self) -> int:
        """How many weights it has, however they are stored."""
        return sum(tensor.numel() for tensor in type(self).structure(self.config, torch.float32).parameters())

    @property
    def rounds_activations(self) -> bool:
        """Whether products round what they multiply, which plain modules on the same weights would not do."""
        return any(isinstance(module, Quantized) and module.form.activations for module in self.modules())

    def exact(self) -> Self:
        """The same model in float64, with this one's own (rounded) weights; those of a large one are not copied."""
        if self.size > _LARGE or self.rounds_activations:
            return widened(self)
        plain = type(self).from_state(self.config, self.reference_state(), torch.float64)
        return plain.with_int8_cache(bool(self.rounded_parts))

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor | None = None,
        past_lengths: Tensor | None = None,
        max_loops: Tensor | int | None = None,
        halt_threshold: Tensor | float | None = None,
        early_exit: Tensor | bool = True,
        past: Mapping[str, Tensor] | None = None,
        initial_state: Tensor | None = None,
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
            past: by cache group, `layers` [L, B, S, C] and `loop` [N, B, S, C], or [N, K, B, S, C]; N >= max_loops.
            initial_state: float32 [B, T, D], of models that draw one; default as the runtime draws it with seed 0.
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

        if initial_state is None and self.initial is not None:
            initial_state = torch.from_numpy(noise.initial_state(self.initial, positions.cpu().numpy())).to(device)
        early_exit = torch.as_tensor(early_exit, device=device)
        call = Call(positions, past_lengths, max_loops, threshold, early_exit, past, initial_state)
        context, before = self.enter(input_ids, call)
        carry = (run_while_loop if use_while_loop else run_python)(self.start(context), self.step, context)

        after = Lines(before.stored, _scalar(self.before, device))
        logits = self.readout(self.finish(carry.exit.answer, after, context.past)).to(wide)
        new = {LOOP: self._fill_depths(carry)}
        if self.before + self.after:
            new = {LAYERS: torch.stack(before.chunks + after.chunks)} | new
        return Output(logits, carry.exit.depth, carry.iteration, new)

    def enter(self, ids: Tensor, call: Call) -> tuple[Context, Lines]:
        """Everything before the loop, int64 [B, T]: what the loop works in, and the lines that its layers filled."""
        wide = accumulation_dtype(self.dtype)
        shared, stored = self.angles(call.positions, call.past_lengths), call.past[LOOP]
        shared = shared._replace(tokens=self.per_token(ids))
        depths = stored.shape[0]
        if self.slots > 1:
            stored = stored.flatten(0, 1)
        around = call.past[LAYERS] if LAYERS in call.past else stored.new_zeros(0, ids.shape[0], 0, stored.shape[-1])
        lines = Lines(around, _scalar(0, ids.device))
        encoded = self.encode(ids, lines, shared).to(wide)
        context = Context(
            encoded=encoded,
            own=self.prepare(encoded, torch.arange(depths, device=ids.device)),
            past=shared,
            around=around,
            stored=stored,
            limit=torch.minimum(call.max_loops, _scalar(depths, ids.device)),
            depths=depths,
            halt_threshold=call.halt_threshold.to(wide),
            every_loop=~call.early_exit,
            initial=None if call.initial is None else call.initial.to(wide),
        )
        return context, lines

    def run(self, inputs: Mapping[str, Tensor], *, use_while_loop: bool = False) -> dict[str, Tensor]:
        """The call as a graph has it: tensors by the names of `spec.ports`, in and out."""
        ports = self.spec.ports
        given = {port.role: inputs[port.name] for port in ports.inputs if port.group is None}
        past = {str(port.group): inputs[port.name] for port in ports.inputs if port.group is not None}
        out = self(given.pop("ids"), **given, past=past, use_while_loop=use_while_loop)
        return {port.name: out.new[port.group] if port.group else getattr(out, port.role) for port in ports.outputs}

    def empty_past(self, batch: int, max_loops: int) -> dict[str, Tensor]:
        """A past that holds nothing, by cache group; see `forward`."""
        weight, line, around = next(self.parameters()), self.sizes.line, self.before + self.after
        layers = {LAYERS: weight.new_zeros(around, batch, 0, line, dtype=self.dtype)} if around else {}
        return layers | {LOOP: weight.new_zeros(*self._lines(max(max_loops, 1)), batch, 0, line, dtype=self.dtype)}

    def start(self, context: Context) -> Carry:
        """What stands before the first iteration."""
        h = (context.encoded if context.initial is None else context.initial).clone()
        halted = context.past.positions < 0
        stored = context.stored
        new_loop = stored.new_zeros(*self._lines(context.depths), *halted.shape, stored.shape[-1])
        return Carry(_scalar(0, h.device), h, self.exit.start(h, halted), (~halted).any(), new_loop)

    def step(self, carry: Carry, context: Context) -> Carry:
        """One iteration of the loop."""
        iteration, following = carry.iteration, carry.iteration + 1
        lines = Lines(context.stored, iteration * self.slots if self.slots > 1 else iteration, self._shown)
        h = tap(self.advance(carry.h, iteration, lines, context), "h")
        logits = self._would_answer(carry.exit, h, context) if self.exit.reads_logits else None
        state, running = self.exit.update(carry.exit, h, context.halt_threshold, following >= context.limit, logits)
        chunk = lines.chunks[0] if self.slots == 1 else torch.stack(lines.chunks)
        return Carry(following, h, state, running, carry.new_loop.index_put((iteration,), chunk))

    def _would_answer(self, state: Any, h: Tensor, context: Context) -> Tensor:
        """Logits [B, T, V] of the states as they are: of those that have left, what they left with."""
        answer = torch.where(state.halted.unsqueeze(-1), state.answer, h)
        lines = Lines(context.around, _scalar(self.before, h.device))
        return self.readout(self.finish(answer, lines, context.past)).to(h.dtype)

    @property
    def _shown(self) -> str:
        return "entries" if self.slots == 1 else "entries."

    def entry_names(self) -> list[str]:
        """What the trace calls a loop's new cache entries, slot by slot."""
        return ["entries"] if self.slots == 1 else [f"entries.{slot}" for slot in range(self.slots)]

    def _fill_depths(self, carry: Carry) -> Tensor:
        """new_loop with the depths that did not run filled by the deepest that did (the `last` cache policy)."""
        depths = torch.arange(carry.new_loop.shape[0], device=carry.new_loop.device)
        deepest = (carry.iteration - 1).clamp(min=0)
        return carry.new_loop.index_select(0, torch.minimum(depths, deepest))

    def _lines(self, depths: int) -> tuple[int, ...]:
        """What stands before the batch in the loop's cache."""
        return (depths,) if self.slots == 1 else (depths, self.slots)


def _scalar(value: Any, device: torch.device) -> Tensor:
    return torch.full((), value, dtype=torch.int64, device=device)
