"""Looped transformers in plain eager PyTorch, one folder a family (`mythos_model.families`).

from mythos_model import load_checkpoint

checkpoint = load_checkpoint("step_0000010.pt")          # never runs code from the file
model = checkpoint.model()
out = model(input_ids, max_loops=8)                      # logits [B, T, V], depth [B, T], loops
"""

from mythos_model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from mythos_model.errors import CheckpointError, ConfigError, ModelError
from mythos_model.families.openmythos import VARIANTS, MythosConfig, MythosModel
from mythos_model.looped import LoopedModel
from mythos_model.state import Output

__all__ = [
    "VARIANTS",
    "Checkpoint",
    "CheckpointError",
    "ConfigError",
    "LoopedModel",
    "ModelError",
    "MythosConfig",
    "MythosModel",
    "Output",
    "load_checkpoint",
    "save_checkpoint",
]
