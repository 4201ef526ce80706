"""The two models that benchmarks measure, as checkpoints and as bundles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mythos_export import export
from mythos_export.errors import BenchError
from mythos_model import MythosConfig, MythosModel, save_checkpoint
from mythos_model.pretrained import folder

HOPS = folder("hops")
"""The trained demo model that ships with the package: its checkpoint, and questions on which it halts early."""

WIDE = MythosConfig(
    vocab_size=8192,
    dim=512,
    n_heads=8,
    max_seq_len=8192,
    max_loop_iters=8,
    kv_lora_rank=128,
    q_lora_rank=256,
    qk_rope_head_dim=32,
    qk_nope_head_dim=64,
    v_head_dim=64,
    n_experts=16,
    n_experts_per_tok=2,
    n_shared_experts=1,
    expert_dim=256,
)
"""512 wide, MLA 128 + 32, 16 experts top-2 of width 256, 2 + 2 layers, 8 loops, random weights."""

NAMES = ("hops", "wide")


def checkpoint(name: str, made: Path) -> Path:
    """The checkpoint of a model of `NAMES`; the random one is written into the folder `made`."""
    if name == "hops":
        return HOPS
    return save_checkpoint(made / f"{name}-checkpoint", WIDE, MythosModel(WIDE).reset_parameters().reference_state())


def named(text: str) -> list[str]:
    """The models of a comma-separated list. Raises BenchError for a name that is none of `NAMES`."""
    return chosen(text, NAMES, "model")


def chosen(text: str, known: Sequence[str], what: str) -> list[str]:
    """A comma-separated list of known names. Raises BenchError, which lists them, for any other."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise BenchError(f"there is no {what} {name!r}; there are {', '.join(known)}")
    return names


def bundle(name: str, into: Path, precision: str = "fp32") -> tuple[Path, Path]:
    """(checkpoint, bundle for ONNX) of a model of `NAMES`, both made in `into` where they are not there."""
    source, made = checkpoint(name, into), into / (name if precision == "fp32" else f"{name}-{precision}")
    if not made.exists():
        export(source, made, precision=precision)
    return source, made


def ids_of(name: str) -> Path | None:
    """Token ids that mean something to the model; None for random weights."""
    return HOPS / "held_out.safetensors" if name == "hops" else None
