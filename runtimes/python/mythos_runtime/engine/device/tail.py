"""What ends an iteration of OpenMythos, as one operator: on a GPU many launches become one.

The block's last residual, LoRA, the injection and the halting are element by element, or a product with a matrix of a
few rows. Where the graph of the step ends in just these operators, `mythos::loop_tail` takes their place; it computes
the same in the same order. Any other graph stays as it is.
"""

from __future__ import annotations

import importlib
from operator import getitem
from typing import Any

_HALTING = "mythos.act_halting.default"
_STATES = (1, 2, 3, 4)  # of what it returns: out, cumulative, halted, depth


class _Other(Exception):
    """The graph is another one."""


def fuse_tail(step: Any) -> bool:
    """Put `mythos::loop_tail` into the step, a GraphModule, in place; returns whether it is there now.

    What only led to the new state is gone then. Values that the graph returns beside it are computed as before, too.
    """
    torch: Any = importlib.import_module("torch")
    graph, operators = step.graph, torch.ops.mythos
    halting = [node for node in graph.nodes if _name(node) == _HALTING]
    if len(halting) != 1 or not hasattr(operators, "loop_tail"):
        return False
    (act,) = halting
    try:
        arguments, between = _matched(act)
    except _Other:
        return False
    (end,) = [node for node in graph.nodes if node.op == "output"]
    results = {act.args[0]: 0} | {
        user: 1 + _STATES.index(user.args[1]) for user in act.users if user.args[1] in _STATES
    }
    with graph.inserting_before(end):
        tail = graph.call_function(operators.loop_tail.default, tuple(arguments))
        for node, at in results.items():
            end.replace_input_with(node, graph.call_function(getitem, (tail, at)))
    for node in (*results, act, *between):  # from the end on
        if not node.users and node in graph.nodes:
            graph.erase_node(node)
    step.recompile()
    return True


def _matched(act: Any) -> tuple[list[Any], list[Any]]:
    """The arguments of `loop_tail`, and the nodes between them and the halting, the last first. Raises _Other."""
    between: list[Any] = []

    def taken(node: Any, name: str, *places: int) -> Any:
        """Arguments of a node that calls `name`, with nothing else said (such as a factor `alpha`)."""
        if _name(node) != name or node.kwargs or max(places) >= len(node.args):
            raise _Other
        between.append(node)
        return tuple(node.args[place] for place in places)

    ahead, *halting = act.args
    kept_and_injected, wide = taken(ahead, "aten.add.Tensor", 0, 1)
    kept, injected = taken(kept_and_injected, "aten.add.Tensor", 0, 1)
    decay, h = taken(kept, "aten.mul.Tensor", 0, 1)
    gain, encoded = taken(injected, "aten.mul.Tensor", 0, 1)
    y, dtype = taken(wide, "aten.to.dtype", 0, 1)
    before, added = taken(y, "aten.add.Tensor", 0, 1)
    inner, up = taken(added, "aten.matmul.default", 0, 1)
    down_of, scale = taken(inner, "aten.mul.Tensor", 0, 1)
    narrowed, down = taken(down_of, "aten.linear.default", 0, 1)
    if narrowed is not before or len(down_of.args) > 2:
        raise _Other
    x, update = taken(before, "aten.add.Tensor", 0, 1)
    given = [getattr(node, "op", None) for node in (h, encoded)]
    if given != ["placeholder"] * 2 or not str(dtype).endswith("float32"):
        raise _Other
    return [x, update, down, scale, up, h, decay, gain, encoded, *halting], between


def _name(node: Any) -> str:
    return str(node.target) if getattr(node, "op", None) == "call_function" else ""
