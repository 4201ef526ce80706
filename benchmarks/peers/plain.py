"""The model in plain PyTorch operators only: what every PyTorch compiler is given.

`mythos_model` reaches its operators as `torch.ops.mythos.*` while torch.export traces, and its mixture of experts
branches in Python on which experts were chosen; no compiler can trace that. Here the experts run in forms that can be
traced, and each compiler is given the first that it takes, in an order chosen by what a form reads and computes (they
are not timed against each other):

- `gathered`: the weights of the chosen experts are gathered per token. The one for one token: only those are read.
- `per_expert`: each expert over the tokens that chose it; sizes depend on data. The first for many tokens.
- `dense`: every expert over every token, the unchosen weighed by zero. For compilers that refuse such sizes.

A grouped product (torch.nn.functional.grouped_mm) would do, but PyTorch traces it in bfloat16 only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.export import ExportedProgram

from mythos_export.bench.backends.backend import Backend, Setting, port_arrays
from mythos_export.bench.workloads import Case
from mythos_export.capture import Exportable
from mythos_model import MythosModel, load_checkpoint, ops, products
from mythos_model.blocks import Rotary
from mythos_model.moe import MixtureOfExperts
from mythos_runtime.spec import LoopSpec

Form = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
Ports = tuple[Tensor, ...]


def gathered(x: Tensor, index: Tensor, weight: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """x [n, D], index and weight [n, K], gate_up [E, 2F, D], down [E, D, F] -> [n, D]; so do the other forms."""
    gate, up = torch.matmul(gate_up[index], x[:, None, :, None]).squeeze(-1).chunk(2, -1)  # [n, K, F]
    out = torch.matmul(down[index], (F.silu(gate) * up).unsqueeze(-1)).squeeze(-1)  # [n, K, D]
    return (weight.unsqueeze(-1) * out).sum(1)


def per_expert(x: Tensor, index: Tensor, weight: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    for expert in range(gate_up.shape[0]):
        token, slot = torch.where(index == expert)
        out = products.swiglu(x[token], gate_up[expert], down[expert])
        y = y.index_add(0, token, out * weight[token, slot].unsqueeze(-1))
    return y


def dense(x: Tensor, index: Tensor, weight: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    n, E = x.shape[0], gate_up.shape[0]
    share = x.new_zeros(n, E).scatter(1, index, weight)  # [n, E]
    gate, up = torch.matmul(x.unsqueeze(0), gate_up.transpose(1, 2)).chunk(2, -1)  # [E, n, F]
    out = torch.matmul(F.silu(gate) * up, down.transpose(1, 2))  # [E, n, D]
    return (share.t().unsqueeze(-1) * out).sum(0)


def forms_for(case: Case) -> tuple[Form, ...]:
    """The forms to try, in this order."""
    return (gathered,) if case.ids.size == 1 else (per_expert, dense)


def first_that_builds(case: Case, build: Callable[[Form], Any]) -> tuple[Any, str]:
    """What the first form that a compiler takes gives, and a note for the report. Raises the last one's error.

    A form counts as taken when what was built has also run once.
    """
    forms = forms_for(case)
    refused = ""
    for form in forms[:-1]:
        try:
            return build(form), f"experts {form.__name__}"
        except Exception as error:  # compilers raise many types for what they cannot do
            line = next(iter(str(error).strip().splitlines()), "")
            refused = f" ({form.__name__} refused: {type(error).__name__}: {line[:160]})"
    return build(forms[-1]), f"experts {forms[-1].__name__}{refused}"


class PlainMixtureOfExperts(MixtureOfExperts):
    """The product's mixture of experts with its weights, computed by one of the forms above."""

    form: Form

    def forward(self, x: Tensor) -> Tensor:  # [B, T, D]
        routing = self.route(x)
        flat, index = x.flatten(0, 1), routing.experts.flatten(0, 1)
        weight = routing.weight.to(x.dtype).flatten(0, 1)
        y = self.form(flat, index, weight, self.routed_gate_up, self.routed_down)
        return (y + products.swiglu(flat, self.shared_gate_up, self.shared_down)).view_as(x)


class CompiledPeer(Backend):
    """What the peers share that compile the plain model before they are timed."""

    restarts = False

    def missing(self, setting: Setting) -> str | None:
        return self.lacks() if setting.checkpoint else "it starts from a checkpoint, and none was named"

    def lacks(self) -> str | None:
        """What this machine lacks for it."""
        raise NotImplementedError


def plain_model(checkpoint: Path, form: Form) -> MythosModel:
    """The checkpoint's model in evaluation mode, its experts computed by `form`."""
    model = load_checkpoint(checkpoint).model()
    assert isinstance(model, MythosModel), "the peers are written for OpenMythos"
    experts = model.experts
    experts.__class__ = PlainMixtureOfExperts  # the same parameters, another way to run them
    experts.form = form  # type: ignore[attr-defined, assignment]
    return model


@contextlib.contextmanager
def angles_in_float32() -> Iterator[None]:
    """Models that are traced here take their rotary angles in float32, which is exact enough for short contexts.

    The model's own are products of 64-bit integers, of which whole turns are lost: what computes those in 32 bits, as
    OpenVINO does on CPUs, rotates by other angles.
    """

    def at(_: type[Rotary], positions: Tensor, width: int, theta: float, dtype: torch.dtype) -> Rotary:
        frequencies = torch.tensor([theta ** (-i / width) for i in range(0, width, 2)], dtype=dtype)
        angles = positions.to(dtype).unsqueeze(-1) * frequencies
        return Rotary(torch.cos(angles), torch.sin(angles))

    with mock.patch.object(Rotary, "at", classmethod(at)):
        yield


def tensors(case: Case, spec: LoopSpec) -> Ports:
    """The case's ports in the order of the model's arguments."""
    return tuple(torch.as_tensor(array) for array in port_arrays(case, spec).values())


def exported(model: MythosModel, ports: Ports) -> ExportedProgram:
    """torch.export of the model for these very shapes, its loop one `while_loop`, without operators of ours."""
    with torch.no_grad():
        program = torch.export.export(Exportable(model), ports, strict=False)
    plain = {
        torch.ops.mythos.mla_attention.default: ops.mla_attention,
        torch.ops.mythos.gqa_attention.default: ops.gqa_attention,
        torch.ops.mythos.act_halting.default: ops.act_halting,
        # Which of equal ones is the first does not matter here, and torch.onnx has no stable sort.
        torch.ops.mythos.largest.default: lambda x, count: x.topk(count).indices,
        torch.ops.mythos.rms_norm.default: ops.rms_norm,
        torch.ops.mythos.rotary_embedding.default: ops.rotary_embedding,
        torch.ops.mythos.tap.default: lambda x, name: x.clone(),
    }
    return program.run_decompositions({**torch.export.default_decompositions(), **plain})  # type: ignore[no-any-return]
