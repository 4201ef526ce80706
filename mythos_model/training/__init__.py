"""Training of small looped models whose depth is real, on a CPU, in minutes.

    python -m mythos_model.training hops --out build/train/hops      # --resume goes on where it stopped

    from pathlib import Path
    from mythos_model.training import Hops, train
    result = train(Hops(), Path("build/train/hops"), seed=0)

Read in this order: `unroll.py` (the model with every loop kept), `halting.py` (when to stop, learnt from the model's
own answers), `hops.py`, `walk.py` and `text.py` in `tasks` (a model's shape, data and loss), `trainer.py` (the loop
around them). The folder a run leaves is a checkpoint for mythos-export.
"""

from mythos_model.training.tasks import TASKS, Hops, Task, Text, Walk
from mythos_model.training.trainer import Result, Settings, TrainingDiverged, train

__all__ = ["TASKS", "Hops", "Result", "Settings", "Task", "Text", "TrainingDiverged", "Walk", "train"]
