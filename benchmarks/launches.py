"""How many launches an iteration is on a GPU, counted on the CPU: `TRITON_INTERPRET=1 python -m benchmarks.launches`.

The step of the row graphs, as the engine runs it there (`--target cuda`), is called once on CPU tensors. Counted are
the kernels of launch plans, which are not run, and PyTorch's operators that compute something; views and allocations
are none. An operator of PyTorch counts once, though a product or a sort may be several.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import click
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mythos_export.capture import capture_rows
from mythos_export.kernels import triton_run
from mythos_export.kernels.eager import kernels
from mythos_model import LoopedModel, load_checkpoint, ops, paged_ops
from mythos_model.pretrained import folder
from mythos_model.quantized import quantize_model
from mythos_runtime.engine.device.programs import cut
from mythos_runtime.ports import shape_of
from mythos_runtime.row_ports import STEP

RESULT = Path(__file__).parent / "results" / "launches.json"
MODEL = "hops"
FORMS = ("fp16", "int8", "fp8")
_SIZES = {"R": 3, "S": 3, "K": 2, "G": 7, "W": 3}
_NOTHING = ("empty", "new_empty", "empty_like", "detach", "empty_strided")  # that take memory, and launch nothing


class Launches(TorchDispatchMode):
    """By what makes them: an operator of PyTorch, or "Triton: " and a kernel."""

    def __init__(self, plainly: Collection[str]) -> None:
        """`plainly`: operators that are computed by PyTorch although they have kernels."""
        super().__init__()
        self.found: Counter[str] = Counter()
        self._own = _plain() | {name: kernel for name, kernel in kernels().items() if name not in plainly}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.split("::")[1]
        if func.namespace == "mythos":
            with self:
                return self._own[name](*args, **(kwargs or {}))
        result = func(*args, **(kwargs or {}))
        given = {each.untyped_storage().data_ptr() for each in _tensors((args, kwargs))}
        view = all(each.untyped_storage().data_ptr() in given for each in _tensors(result))
        if name not in _NOTHING and (func._schema.is_mutable or not view):
            self.found[name] += 1
        return result


def _tensors(values: Any) -> list[torch.Tensor]:
    return [each for each in tree_leaves(values) if isinstance(each, torch.Tensor)]


def _plain() -> dict[str, Any]:
    """The plain forms of all operators, by name."""
    names = [name.partition("::")[2] for name in torch._C._dispatch_get_all_op_names() if name.startswith("mythos::")]
    return {name: getattr(module, name) for module in (ops, paged_ops) for name in names if hasattr(module, name)}


def count(model: LoopedModel, fused: bool, plainly: Collection[str] = ()) -> Counter[str]:
    """The launches of one call of the step, with what ends it as one operator or as several; see `Launches`."""
    captured = capture_rows(model)
    assert captured is not None
    ports, step = model.spec.graphs[STEP].inputs, cut(captured.program.module(), model.spec.graphs, fused=fused)[STEP]
    given = [torch.zeros(shape_of(port, _SIZES), dtype=getattr(torch, port.dtype)) for port in ports]

    class Counted:
        """A kernel that notes that it was launched."""

        def __init__(self, source: str) -> None:
            self.name = f"Triton: {source.rpartition(':')[2].removesuffix('_kernel')}"

        def __getitem__(self, grid: Any) -> Any:
            return lambda *arguments, **constants: launches.found.update([self.name])

    real, launches = triton_run.load_kernel, Launches(plainly)
    triton_run.load_kernel = Counted  # type: ignore[assignment]
    try:
        with torch.no_grad(), launches:
            step(*given)
    finally:
        triton_run.load_kernel = real
    return launches.found


def document() -> dict[str, Any]:
    """By form of the weights: launches of an iteration; with its end operator by operator; with rotations so, too."""
    found: dict[str, Any] = {}
    for form in FORMS:
        model = load_checkpoint(folder(MODEL)).model(torch.float16 if form == "fp16" else torch.float32)
        if form != "fp16":
            quantize_model(model, form, model.keeps)
        before, apart = count(model, False, ["rotary_embedding"]), count(model, False)
        fused = count(model, True)
        totals = {"rotations_and_end_apart": before.total(), "end_apart": apart.total(), "now": fused.total()}
        found[form] = {**totals, "launches": dict(fused.most_common())}
    return {"model": MODEL, "torch": torch.__version__, "forms": found, "state": "counted, not executed on a GPU"}


@click.command(help=__doc__)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), default=RESULT, show_default=True)
def main(output: Path) -> None:
    if not triton_run.interpreted():
        raise click.ClickException(
            "without a GPU the kernels are taken only with TRITON_INTERPRET=1 in the environment"
        )
    counted = document()
    output.write_text(json.dumps(counted, indent=1) + "\n", encoding="utf-8")
    for form, row in counted["forms"].items():
        click.echo(
            f"{MODEL}, {form}: {row['now']} launches an iteration; {row['end_apart']} with its end operator by "
            f"operator, {row['rotations_and_end_apart']} with the rotations so, too"
        )


if __name__ == "__main__":
    main()
