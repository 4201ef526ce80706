"""What `--precision` names: how weights are stored, and the dtype of activations and caches; and `--cache`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch

from mythos_export.errors import PackageError
from mythos_model import Checkpoint, LoopedModel
from mythos_model.formats import FORMATS, ROUNDED
from mythos_model.quantized import quantize_model
from mythos_runtime.manifest import MIXED

AUTO = "auto"  # asks for a mix of formats (`mythos_export.mix`), in place of a precision


@dataclass(frozen=True)
class Precision:
    """A value of `--precision`.

    Attributes:
        name: its name in commands and manifests.
        dtype: of activations, caches and unquantised weights.
        formats: of MIXED, by group of matrices (`mythos_model.quantized.groups_of`); what is left out stays float32.
        int8_cache: whether cache lines are rounded to int8 (`mythos_model.cache_lines`).
    """

    name: str
    dtype: torch.dtype
    formats: Mapping[str, str] = field(default_factory=dict)
    int8_cache: bool = False

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
        made = quantize_model(model, form, model.keeps) if self.quantized else model
        return made.with_int8_cache() if self.int8_cache else made


def precision_of(name: str, formats: Mapping[str, str], int8_cache: bool = False) -> Precision:
    """As a manifest has them: the precision's name, the formats by group where it is MIXED, and whether its caches are
    rounded to int8."""
    return replace(PRECISIONS[name], formats=formats, int8_cache=int8_cache)


def is_int8_cache(precision: str, cache: str | None) -> bool:
    """Whether `--cache` asks for cache lines in int8: fp32, int8, or None for what the precision computes in.

    Raises:
        PackageError: there are no such caches at this precision.
    """
    if cache not in (None, "fp32", "int8"):
        raise PackageError(f"found --cache {cache}; expected fp32 or int8")
    if cache is None or (cache == "fp32" and precision != "fp16"):
        return False
    if precision == "fp16":
        raise PackageError(
            f"found --cache {cache} at --precision fp16, whose caches are float16: leave --cache out, or export with "
            "--precision fp32, int8 or int4, which compute in float32"
        )
    if precision == AUTO:
        raise PackageError(
            f"--cache int8 and --precision {AUTO} do not go together so far: the bound of --max-kl is measured on "
            "caches in float32; choose --precision fp32, int8 or int4"
        )
    if precision in ROUNDED and FORMATS[precision].activations:
        raise PackageError(
            f"found --cache int8 at --precision {precision}, which rounds activations to int8, too: what the one moves "
            "hides from the verification whether an artifact does the other; leave --cache out, or --activations int8"
        )
    return True


def with_activations(precision: str, activations: str | None) -> str:
    """The precision's name with its weights multiplied by activations in `activations`, fp32 or int8.

    Raises:
        PackageError: there is no such form.
    """
    rounds = precision in ROUNDED and FORMATS[precision].activations  # int8a8, the name of int8 with such activations
    if activations is None or activations == ("int8" if rounds else "fp32"):
        return precision
    if activations == "fp32":
        raise PackageError(
            f"found --activations fp32 at --precision {precision}, which rounds activations to int8: give "
            f"--precision {precision.removesuffix('a8')}"
        )
    if activations != "int8" or f"{precision}a8" not in PRECISIONS:
        raise PackageError(
            f"found --activations {activations} at --precision {precision}; expected fp32 or, for int8 and int4 "
            "weights, int8"
        )
    return f"{precision}a8"


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
