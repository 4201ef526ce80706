"""The operators that ONNX has itself: what the translated nodes compute, against their plain form."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]
import pytest
import torch
from torch import Tensor, nn

from mythos_export.kernels import standard
from mythos_export.kernels.text import OPSET
from mythos_model import ops

HALF, WIDE = torch.float16, torch.float32


class Norm(nn.Module):
    def __init__(self, weight: Tensor | None, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = weight, eps

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = torch.ops.mythos.rms_norm(x, self.weight, self.eps)
        return result


@pytest.mark.parametrize("eps", [1e-6, 1.1920929e-7])
@pytest.mark.parametrize(("of_x", "of_weight"), [(WIDE, WIDE), (HALF, HALF), (WIDE, HALF), (WIDE, None), (HALF, None)])
def test_rms_norm(of_x: torch.dtype, of_weight: torch.dtype | None, eps: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 12, generator=generator)
    x[0, 0] *= 3e-4  # its mean square is about eps: another eps shows
    weight = None if of_weight is None else torch.randn(12, generator=generator).to(of_weight)
    x = x.to(of_x)
    program = torch.onnx.export(
        torch.export.export(Norm(weight, eps), (x,)), opset_version=OPSET, verbose=False,
        custom_translation_table=standard.translations(),
    )  # fmt: skip
    assert program is not None
    proto = program.model_proto
    assert [node.op_type for node in proto.graph.node].count("RMSNormalization") == 1
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    expected = ops.rms_norm(x, weight, eps)
    assert found.dtype == expected.numpy().dtype
    tolerance = 1e-6 if expected.dtype == WIDE else 2e-3
    np.testing.assert_allclose(found, expected.numpy(), rtol=tolerance, atol=tolerance)
