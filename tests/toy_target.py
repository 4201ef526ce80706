"""A target of somebody else: this module, and its line in the registry, are all that there is of it."""

from __future__ import annotations

from pathlib import Path

import onnx

from mythos_export.errors import TargetError
from mythos_export.lower import Lowered
from mythos_export.targets.target import Built, Progress, TargetOptions
from mythos_runtime.spec import LoopSpec

LINE = "toy_target:ToyTarget"


class ToyTarget:
    """Writes down which operators the graph calls."""

    name = "toy"
    precisions = ("fp32",)
    options = frozenset({"batch"})

    def check(self, options: TargetOptions) -> None:
        if options.batch == "0":
            raise TargetError("a batch of 0 is nothing")

    def check_model(self, spec: LoopSpec, options: TargetOptions) -> None:
        pass

    def build(self, lowered: Lowered, folder: Path, options: TargetOptions, progress: Progress) -> Built:
        progress("toy: listing")
        nodes = onnx.load(lowered.path, load_external_data=False).graph.node
        (folder / "toy.txt").write_text("\n".join(sorted({node.op_type for node in nodes})))
        return Built(self.name, ("toy.txt",), details={"batch": options.batch})
