"""The two models that benchmarks measure, as checkpoints and as bundles."""

from __future__ import annotations

from pathlib import Path

from mythos_export import export
from mythos_model import MythosConfig, MythosModel, save_checkpoint

HOPS = Path(__file__).parents[1] / "tests" / "golden" / "hops"
"""The trained demo model: its checkpoint, and questions (`io.safetensors`) on which it halts early."""

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


def checkpoint(name: str, folder: Path) -> Path:
    """The checkpoint of a model of `NAMES`; the random one is written into `folder`."""
    if name == "hops":
        return next(HOPS.glob("*.pt"))
    return save_checkpoint(folder / f"{name}-checkpoint", WIDE, MythosModel(WIDE).reset_parameters().reference_state())


def bundle(name: str, folder: Path) -> tuple[Path, Path]:
    """(checkpoint, bundle for ONNX) of a model of `NAMES`, both made in `folder` where they are not there."""
    source, made = checkpoint(name, folder), folder / name
    if not made.exists():
        export(source, made)
    return source, made


def ids_of(name: str) -> Path | None:
    """Token ids that mean something to the model; None for random weights."""
    return HOPS / "io.safetensors" if name == "hops" else None
