"""The loop of a captured program, driven by `DeviceLoop`: everything around it runs operator by operator."""

from __future__ import annotations

import importlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from mythos_runtime.device_loop.graphs import Graphs
from mythos_runtime.device_loop.loop import DeviceLoop

_TAP = "mythos.tap.default"
_SMALL = tuple(f"mythos.{name}.default" for name in ("rms_norm", "rotary_embedding", "act_halting"))
"""Operators whose plain form a compiler fuses with what stands around them."""

_MOST_LOOPS = 16
"""Shapes whose loops are kept; each holds a copy of what its iterations read, and the memory that they work in."""


def looped(module: Any, graphs: Graphs, plain: Any = None) -> Callable[..., Any]:
    """A function that computes what a torch.export module with `while_loop` in it computes: same arguments and results.

    Taps (`mythos::tap`, identities with a name) are taken out of the module's graphs, for each is a copy.

    Args:
        plain: what has the operators' plain forms as functions of their names. With it, PyTorch compiles the iteration
            when it first comes in a shape: norms, injection, halting and what lies between them become few kernels,
            and the heavy operators stay what they are. Sums may then be rounded in another order.
    """
    torch: Any = importlib.import_module("torch")
    while_loop = torch.ops.higher_order.while_loop
    without_taps(module)

    class Interpreter(torch.fx.Interpreter):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(module)
            self.loops: OrderedDict[Any, DeviceLoop] = OrderedDict()

        def run_node(self, node: Any) -> Any:
            if node.op != "call_function" or node.target is not while_loop:
                return super().run_node(node)
            condition, body, carried, extras = self.map_nodes_to_values(node.args, node)
            key = (node.name, *((tuple(t.shape), t.dtype) for t in (*carried, *extras)))
            loop = self.loops.pop(key, None)
            if loop is None:
                if plain is not None:
                    body = torch.compile(with_plain_forms(body, plain), dynamic=False, fullgraph=True)
                stays = [source.op == "get_attr" for source in node.args[3]]
                loop = DeviceLoop(condition, body, carried, extras, graphs, stays)
            self.loops[key] = loop  # the newest
            if len(self.loops) > _MOST_LOOPS:
                self.loops.popitem(last=False)[1].close()
            return tuple(loop.run(carried, extras))

    interpreter = Interpreter()

    def call(*arguments: Any) -> Any:
        flat = torch.utils._pytree.tree_flatten(arguments)[0]
        return interpreter.run(*flat, enable_io_processing=False)

    return call


def with_plain_forms(body: Any, plain: Any) -> Any:
    """The graph (a GraphModule, changed in place) with the plain forms of the small operators in it, which a compiler
    fuses; `plain` has them as functions of the operators' names."""
    for node in body.graph.nodes:
        if node.op == "call_function" and str(node.target) in _SMALL:
            node.target = getattr(plain, str(node.target).split(".")[1])
    body.recompile()
    return body


def without_taps(module: Any) -> None:
    """Take the identities `mythos::tap` out of a module's graphs."""
    torch: Any = importlib.import_module("torch")
    for part in module.modules():
        if not isinstance(part, torch.fx.GraphModule):
            continue
        for node in list(part.graph.nodes):
            if node.op == "call_function" and str(node.target) == _TAP:
                node.replace_all_uses_with(node.args[0])
                part.graph.erase_node(node)
        part.recompile()
