"""Programs that torch.onnx converts without tracing them once more."""

from __future__ import annotations

from collections.abc import Callable

import onnxruntime
import pytest
import torch
from golden_bundles import GOLDEN, config_of
from golden_families import GoldenCase
from torch import Tensor, nn

from mythos_export.capture import capture, capture_rows
from mythos_export.kernels import standard
from mythos_export.kernels.op import OPERATORS
from mythos_export.kernels.text import OPSET
from mythos_export.passes.name_taps import translations as tap_translations
from mythos_export.undecomposed import convert, translations, undecomposed
from mythos_model import LoopedModel, load_checkpoint

OWN = {op.torch_op for op in OPERATORS.values()} | set(standard.translations()) | set(tap_translations())
FAMILIES = ["mla_prefill", "gqa_prefill", "ouro_decode", "huginn_decode", "parcae_decode", "nanbeige_decode"]


def model_of(name: str) -> LoopedModel:
    if name in ("mla_prefill", "gqa_prefill"):
        return load_checkpoint(GOLDEN / name / "model.safetensors", config_of(name)["config"]).model()
    case = GoldenCase.load(name)
    return load_checkpoint(case.folder, case.config, exit_rule=case.exit_rule).model()


@pytest.mark.parametrize("name", FAMILIES)
def test_no_family_is_traced_twice(name: str) -> None:
    model = model_of(name)
    for captured in (capture(model), capture_rows(model)):
        assert captured is not None
        given = undecomposed(captured.program, OWN | set(translations()))
        assert given is not captured.program and given.run_decompositions() is given
        assert given.graph_module is not captured.program.graph_module


class Several(nn.Module):
    """What is translated here, in every form."""

    def forward(self, x: Tensor, n: Tensor) -> tuple[Tensor, ...]:
        first, middle, last = x.unflatten(0, (2, -1)), x.unflatten(1, (-1, 3)), x.unflatten(-1, (2, 2))
        sure = (x > 0) & (x < 1) | (x < -1)
        own = (x + torch.tensor(2.0)).detach_()
        whole = (x * 3).to(torch.int64)
        there = x.to(n.device, n.dtype)
        less, twice, half = torch.rsub(x, 1), torch.rsub(x, 2.5, alpha=2), 0.5 - n
        flat = x.flatten(), x.flatten(0, 1), x.flatten(1)
        return (
            first,
            middle,
            last,
            *flat,
            sure,
            n & (n + 2) | (n + 9),
            own,
            whole,
            there,
            less,
            twice,
            half,
            x.square(),
            1 - n,
        )


def answers(module: nn.Module, *inputs: Tensor) -> bool:
    """Holds ONNX Runtime's to PyTorch's; whether the program is converted as it is. The number of rows is dynamic."""
    rows = torch.export.Dim("rows", min=2, max=100)
    shapes = tuple({0: 2 * rows} for _ in inputs)
    program = torch.export.export(module, inputs, dynamic_shapes=shapes)
    tried: list[bool] = []
    with pytest.MonkeyPatch.context() as patch:
        export = torch.onnx.export
        patch.setattr(
            torch.onnx, "export", lambda given, **how: (tried.append(given is program), export(given, **how))[1]
        )
        made = convert(program, {}, opset_version=OPSET, verbose=False)
    assert made is not None
    session = onnxruntime.InferenceSession(made.model_proto.SerializeToString())
    names = [each.name for each in session.get_inputs()]
    twice = [torch.cat([each, each]) for each in inputs]
    found = session.run(None, dict(zip(names, (each.numpy() for each in twice), strict=True)))
    for ours, theirs in zip(found, module(*twice), strict=True):
        torch.testing.assert_close(torch.from_numpy(ours), theirs)
    return tried == [False]


@pytest.mark.filterwarnings("ignore")
def test_what_is_translated_computes_the_same() -> None:
    assert answers(Several(), torch.randn(4, 6, 4), torch.arange(24).reshape(4, 6, 1))


class Other(nn.Module):
    def __init__(self, compute: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.compute = compute

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.compute(x),)


def without_gradients(x: Tensor) -> Tensor:
    with torch.no_grad():
        twice = x * 2
    return twice + 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "compute",
    [
        lambda x: torch.nn.functional.huber_loss(x, x * 2, reduction="none"),
        lambda x: x.addcmul(x, x),
        lambda x: x.var(-1, correction=0),  # torch.onnx takes it apart, and the decompositions of torch.export do not
        lambda x: x[:, None, None].squeeze((1, 2)),
        lambda x: x.shape[0] - x,
        lambda x: x.unflatten(0, (x.shape[0] // 2, -1)),
        lambda x: (x > 0) & x.long(),
        lambda x: x.int() | (x > 0),
        lambda x: x.long() & x.int(),
        without_gradients,
    ],
)
def test_what_has_to_be_taken_apart_is(compute: Callable[[Tensor], Tensor]) -> None:
    assert not answers(Other(compute), torch.randn(4, 6) * 9)
