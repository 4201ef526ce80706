"""OpenMythos, a recurrent-depth transformer, in plain eager PyTorch.

from mythos_model import MythosModel, load_checkpoint

checkpoint = load_checkpoint("step_0000010.pt")          # never runs code from the file
model = MythosModel.from_state(checkpoint.config, checkpoint.state)
out = model(input_ids, max_loops=8)                      # logits [B, T, V], depth [B, T], loops
"""

from mythos_model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from mythos_model.config import VARIANTS, MythosConfig
from mythos_model.errors import CheckpointError, ConfigError, ModelError
from mythos_model.model import MythosModel, Output

__all__ = [
    "VARIANTS",
    "Checkpoint",
    "CheckpointError",
    "ConfigError",
    "ModelError",
    "MythosConfig",
    "MythosModel",
    "Output",
    "load_checkpoint",
    "save_checkpoint",
]
