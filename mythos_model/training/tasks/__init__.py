"""Tasks to train on, one module each; `TASKS` names them for the command line."""

from mythos_model.training.tasks.hops import Hops
from mythos_model.training.tasks.task import Task
from mythos_model.training.tasks.text import Text
from mythos_model.training.tasks.walk import Walk

TASKS: dict[str, type[Hops] | type[Text]] = {"hops": Hops, "text": Text, "walk": Walk}

__all__ = ["TASKS", "Hops", "Task", "Text", "Walk"]
