"""Checkpoint files in, and the way back.

Reading has two halves: `read_checkpoint` knows files and no model (`raw.py`), `load_checkpoint` finds the model in what
was read and holds the tensors to its configuration (`load.py`).
"""

from mythos_model.checkpoint.load import Checkpoint, load_checkpoint
from mythos_model.checkpoint.raw import Examined, RawCheckpoint, read_checkpoint
from mythos_model.checkpoint.save import save_checkpoint

__all__ = ["Checkpoint", "Examined", "RawCheckpoint", "load_checkpoint", "read_checkpoint", "save_checkpoint"]
