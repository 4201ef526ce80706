"""What `--precision` names: how weights are stored, and the dtype of activations and caches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch

from mythos_export.errors import PackageError
from mythos_model import Checkpoint, LoopedModel
from mythos_model.formats import ROUNDED
from mythos_model.quantized import quantize_model
from mythos_runtime.manifest import MIXED


@dataclass(frozen=True)
class Precision:
    """A value of `--precision`.

    Attributes:
        name: its name in commands and manifests.
        dtype: of activations, caches and unquantised weights.
        formats: of MIXED, by group of matrices (`mythos_model.quantized.groups_of`); what is left out stays float32.
    """

    name: str
    dtype: torch.dtype
    formats: Mapping[str, str] = field(default_factory=dict)

    @property
    def quantized(self) -> bool:
        """Whether the matrices are rounded (`mythos_model.formats`)."""
        return self.name in (*ROUNDED, MIXED)

    def model(self, checkpoint: Checkpoint) -> LoopedModel:
        """The eager model with the checkpoint's weights rounded to this precision.

        Raises:
            ModelError: a weight is too large for a block-wise form's scale.
        """
        return self._rounded(checkpoint.model(self.dtype))

    def structure(self, checkpoint: Checkpoint) -> LoopedModel:
        """The same model without weights."""
        return self._rounded(checkpoint.family.model.structure(checkpoint.config, self.dtype))

    def _rounded(self, model: LoopedModel) -> LoopedModel:
        form = self.formats if self.name == MIXED else self.name
        return quantize_model(model, form, model.keeps) if self.quantized else model


def precision_of(name: str, formats: Mapping[str, str]) -> Precision:
    """As a manifest has them: the precision's name, and the formats by group where it is MIXED."""
    return replace(PRECISIONS[name], formats=formats)


def with_activations(precision: str, activations: str | None) -> str:
    """The precision's name with its weights multiplied by activations in `activations`, fp32 or int8.

    Raises:
        PackageError: there is no such form.
    """
    if activations is None or (activations == "fp32" and not precision.endswith("a8")):
        return precision
    name = f"{precision}a8"
    if activations != "int8" or name not in PRECISIONS:
        raise PackageError(
            f"found --activations {activations} at --precision {precision}; expected fp32 or, for int8 and int4 "
            "weights, int8"
        )
    return name


PRECISIONS = {
    precision.name: precision
    for precision in (
        Precision("fp32", torch.float32),
        Precision("fp16", torch.float16),
        Precision("int8", torch.float32),
        Precision("int4", torch.float32),
        Precision("fp8", torch.float32),
        Precision("int8a8", torch.float32),
        Precision("int4a8", torch.float32),
        Precision(MIXED, torch.float32),
    )
}
