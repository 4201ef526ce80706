"""The captured program, reloaded from model.pt2 and run node by node, so that the loop can be watched."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import fx

from mythos_export.errors import ParityError
from mythos_export.verify.stages.stage import Bundle, Stage, failing
from mythos_export.verify.threads import SMALL, threads
from mythos_export.verify.trace import Answer, Values, names, stacked, to_numpy, to_torch
from mythos_runtime.program import WEIGHTS, load_program
from mythos_runtime.spec import LoopSpec

# What PyTorch raises where a program cannot be computed; AssertionError where inputs break the program's guards.
ERRORS = (AssertionError, IndexError, MemoryError, RuntimeError, ValueError)
_NO_LOOP = "the captured program holds no while_loop"


class Program(Stage):
    """model.pt2 in PyTorch."""

    name: ClassVar[str] = "program"
    runner: ClassVar[str] = "PyTorch"
    artifact: ClassVar[str] = "model.pt2"
    optional: ClassVar[bool] = True

    def __init__(self, program: torch.export.ExportedProgram, spec: LoopSpec, threads: int | None = None) -> None:
        self.program, self.spec = program, spec
        self.module = program.module()
        self.arguments = [port.name for port in spec.ports.inputs]
        self.threads = threads

    @classmethod
    def files(cls, bundle: Bundle) -> list[str]:
        return [cls.artifact, WEIGHTS]

    @classmethod
    def takes(cls, bundle: Bundle, inputs: Mapping[str, np.ndarray]) -> bool:
        return bundle.is_short(inputs)

    @classmethod
    def open(cls, bundle: Bundle) -> Program:
        import mythos_model.ops  # noqa: F401  (registers the operators that the program calls)

        count = bundle.threads or (1 if bundle.weight_bytes < SMALL else None)
        return cls(load_program(bundle.folder / cls.artifact), bundle.spec, count)

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
        taps, steps = trace_taps(watched.loop.body), watched.loop.steps
        for name in names(self.spec):
            if name not in taps:
                raise ParityError(f"cannot look inside the program's loop: nothing in its body is tapped as {name}")
        return Answer(
            outputs, stacked({name: [to_numpy(step[taps[name]]) for step in steps] for name in names(self.spec)})
        )

    def weights(self) -> dict[str, dict[str, np.ndarray]]:
        held = {**self.program.state_dict, **self.program.constants}
        return {self.artifact: {n: to_numpy(value) for n, value in held.items() if isinstance(value, torch.Tensor)}}

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
        tensors = [to_torch(inputs[name]) for name in self.arguments]
        with failing(self.runner, *ERRORS), torch.no_grad(), threads(self.threads):
            result = call(*tensors)
        return {port.name: to_numpy(each) for port, each in zip(self.spec.ports.outputs, result, strict=True)}


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
    """Tensor of the trace -> the node of the body that shows it."""
    tapped = [node for node in body.nodes if node.target is torch.ops.mythos.tap.default]
    return {str(node.args[1]): node for node in tapped}


def _is_loop(node: fx.Node) -> bool:
    return node.op == "call_function" and node.target is torch.ops.higher_order.while_loop


def _arrays(values: Mapping[fx.Node, Any]) -> dict[str, np.ndarray]:
    return {node.name: to_numpy(value) for node, value in values.items() if isinstance(value, torch.Tensor)}
