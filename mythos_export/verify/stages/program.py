"""The captured program, reloaded from model.pt2 and run node by node, so that the loop can be watched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import fx

from mythos_export.capture import OUTPUT_NAMES
from mythos_export.errors import ParityError
from mythos_export.verify.stages.stage import Bundle, Stage, failing
from mythos_export.verify.trace import Answer, Values, stacked, to_numpy
from mythos_model.loop import Carry

_NO_LOOP = "the captured program holds no while_loop"


class Program(Stage):
    """model.pt2 in PyTorch."""

    name: ClassVar[str] = "program"
    runner: ClassVar[str] = "PyTorch"
    artifact: ClassVar[str] = "model.pt2"

    def __init__(self, program: torch.export.ExportedProgram, threads: int | None = None) -> None:
        self.program = program
        self.module = program.module()
        self.arguments = list(program.graph_signature.user_inputs)
        self.threads = threads

    @classmethod
    def open(cls, bundle: Bundle) -> Program:
        import mythos_model.ops  # noqa: F401  (registers the operators that the program calls)

        with failing(cls.runner):
            return cls(torch.export.load(bundle.folder / cls.artifact), bundle.threads)

    def outputs(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self._run(self.module, inputs)

    def answer(self, inputs: Mapping[str, np.ndarray]) -> Answer:
        watched = _Watched(self.module)
        outputs, seen = self.outputs(inputs), self._run(watched.run, inputs)
        for name, array in outputs.items():
            if not np.array_equal(array, seen[name], equal_nan=array.dtype.kind == "f"):
                raise ParityError(f"run node by node, the program computes another {name} than when it is called")
        if watched.loop is None:
            raise ParityError(_NO_LOOP)
        taps = trace_taps(watched.loop.body)
        steps = [{name: to_numpy(_first(step[node])) for name, node in taps.items()} for step in watched.loop.steps]
        return Answer(outputs, stacked(steps))

    def values(self, inputs: Mapping[str, np.ndarray], iterations: Sequence[int]) -> list[Values]:
        watched = _Watched(self.module)
        self._run(watched.run, inputs)
        steps = watched.loop.steps if watched.loop is not None else []
        around = _arrays(watched.env)
        return [Values(_arrays(steps[i]) if i < len(steps) else {}, around) for i in iterations]

    def graphs(self) -> tuple[fx.Graph, fx.Graph]:
        """The graph around the loop, and the loop's body."""
        node = next((node for node in self.module.graph.nodes if _is_loop(node)), None)
        if node is None:
            raise ParityError(_NO_LOOP)
        return self.module.graph, getattr(self.module, node.args[1].target).graph

    def _run(self, call: Callable[..., Any], inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        tensors = [_to_torch(inputs[name]) for name in self.arguments]
        with failing(self.runner), torch.no_grad():
            result = call(*tensors)
            return {name: to_numpy(tensor) for name, tensor in zip(OUTPUT_NAMES, result, strict=True)}


class _Watched(fx.Interpreter):
    """Runs a program, keeping what every node computes; its while_loop is driven here."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.loop: _Loop | None = None

    def run_node(self, node: fx.Node) -> Any:
        if not _is_loop(node):
            return super().run_node(node)
        arguments: Any = node.args  # condition, body, the state, and what stays the same
        condition, body = (getattr(self.module, argument.target) for argument in arguments[:2])
        state, constant = (self.map_nodes_to_values(argument, node) for argument in arguments[2:4])
        self.loop = _Loop(condition, body)
        return self.loop.run(list(state), list(constant))  # type: ignore[arg-type]


class _Loop:
    """torch's while_loop, one iteration at a time."""

    def __init__(self, condition: fx.GraphModule, body: fx.GraphModule) -> None:
        self.condition, self.body_module, self.body = condition, body, body.graph
        self.steps: list[dict[fx.Node, Any]] = []

    def run(self, state: Sequence[Any], constant: Sequence[Any]) -> Sequence[Any]:
        while bool(self.condition(*state, *constant)):
            interpreter = fx.Interpreter(self.body_module, garbage_collect_values=False)
            state = interpreter.run(*state, *constant)
            self.steps.append(dict(interpreter.env))
        return state


def trace_taps(body: fx.Graph) -> dict[str, fx.Node]:
    """Tensor of the trace -> the node of the body whose (first) result it is; found by the order of the loop's state.

    Raises:
        ParityError: the body is built in another way.
    """
    ops = torch.ops.aten
    choice, halting = _one(body, ops.topk.default), _one(body, torch.ops.mythos.act_halting.default)
    try:
        after = dict(zip(Carry._fields, body.output_node().args[0], strict=True))  # type: ignore[arg-type]
        experts = next(node for node in choice.users if node.args[1] == 1)
        picked = next(node for node in experts.users if node.target is ops.gather.default)
        weights = next(node for node in picked.users if node.target is ops.softmax.int)
        written = after["new_loop"].args[3].args[0]  # type: ignore[union-attr]
    except (StopIteration, LookupError, AttributeError, TypeError, ValueError) as error:
        text = f"cannot look inside the program's loop: its body is built in another way ({error!r})"
        raise ParityError(text) from error
    return {
        "entries": written,  # type: ignore[dict-item]
        "experts": experts,
        "weights": weights,
        "h": after["h"],
        "p": halting,
        "cumulative": after["cumulative"],
        "depth": after["depth"],
        "halted": after["halted"],
        "out": after["out"],
    }


def _is_loop(node: fx.Node) -> bool:
    return node.op == "call_function" and node.target is torch.ops.higher_order.while_loop


def _one(body: fx.Graph, target: Any) -> fx.Node:
    found = [node for node in body.nodes if node.target is target]
    if len(found) != 1:
        raise ParityError(f"cannot look inside the program's loop: it holds {len(found)} of {target}, expected one")
    return found[0]


def _first(value: Any) -> Any:
    """The result, or the first of several: what is no part of the state has no node of its own."""
    return value[0] if isinstance(value, tuple) else value


def _arrays(values: Mapping[fx.Node, Any]) -> dict[str, np.ndarray]:
    return {node.name: to_numpy(value) for node, value in values.items() if isinstance(value, torch.Tensor)}


def _to_torch(array: np.ndarray) -> torch.Tensor:
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)
