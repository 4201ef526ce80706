"""The loop on a GPU, as far as a machine without one can try it: what is computed, and what the driver is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_bundles import Bundles
from stand_ins import FakeTorch, HostGraphs, NotingDriver

from mythos_model import ops
from mythos_runtime.device_loop.graphs import CONDITION, CudaGraphs
from mythos_runtime.device_loop.loop import DeviceLoop
from mythos_runtime.device_loop.program import looped
from mythos_runtime.manifest import read_manifest
from mythos_runtime.program import load_program


def below(count: torch.Tensor, total: torch.Tensor, other: torch.Tensor, limit: torch.Tensor, step: Any) -> Any:
    return count < limit


def advance(count: torch.Tensor, total: torch.Tensor, other: torch.Tensor, limit: torch.Tensor, step: Any) -> Any:
    return count + 1, other, total + step  # two of them change places


def start() -> list[torch.Tensor]:
    return [torch.tensor(0), torch.zeros(3), torch.ones(3)]


@pytest.mark.parametrize("way", ["run", "run_driven"])
def test_iterations_until_the_condition_says_no(way: str) -> None:
    graphs, step = HostGraphs(), torch.full((3,), 2.0)
    loop = DeviceLoop(below, advance, start(), [torch.tensor(3), step], graphs, [False, True])
    for limit in (3, 0, 5):  # none at all, too, and values of an earlier call never come back
        count, total, other = getattr(loop, way)(start(), [torch.tensor(limit), step])
        a, b = torch.zeros(3), torch.ones(3)
        for _ in range(limit):
            a, b = b, a + 2
        assert int(count) == limit and torch.equal(total, a) and torch.equal(other, b)
    assert graphs.launched == (["while"] * 3 if way == "run" else ["graph"] * 8)
    loop.close()
    assert graphs.freed == 1


def test_so_many_iterations_whatever_the_condition_says() -> None:
    loop = DeviceLoop(below, advance, start(), [torch.tensor(1), torch.ones(3)], HostGraphs())
    assert int(loop.run_fixed(start(), [torch.tensor(1), torch.ones(3)], 4)[0]) == 4
    assert int(loop.run_fixed(start(), [torch.tensor(1), torch.ones(3)], 2)[0]) == 2


def calls(folder: Path) -> Iterator[list[torch.Tensor]]:
    """Prompts of two shapes, thresholds and depths, as the program takes them."""
    ports = read_manifest(folder).spec.ports.inputs
    for tokens, loops, threshold, early in ((6, 4, 0.9, True), (6, 4, 2.0, False), (3, 2, 0.2, True)):
        values = {
            "ids": torch.randint(50, (2, tokens), generator=torch.Generator().manual_seed(tokens)),
            "positions": torch.arange(tokens).expand(2, -1).contiguous(),
            "past_lengths": torch.zeros(2, dtype=torch.int64),
            "max_loops": torch.tensor(loops),
            "halt_threshold": torch.tensor(threshold),
            "early_exit": torch.tensor(early),
        }
        sizes = {"B": 2, "P": 0, "N": loops}
        past = [torch.zeros([sizes.get(str(d), d) for d in port.dims]) for port in ports if port.role == "past"]
        yield [values[port.role] for port in ports if port.role != "past"] + past


def test_a_captured_program_runs_its_loop_so(bundles: Bundles) -> None:
    """Everything equal to the bit, in one launch a call."""
    folder = bundles["gqa_prefill"]
    plain, graphs = load_program(folder / "model.pt2").module(), HostGraphs()
    run = looped(load_program(folder / "model.pt2").module(), graphs)
    for given in calls(folder):
        for found, expected in zip(run(*given), plain(*given), strict=True):
            assert torch.equal(found, expected)
    assert graphs.launched == ["while"] * 3


@pytest.mark.slow
def test_an_iteration_is_compiled_into_few_kernels(bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU, for which the same compiler fuses the same operators; products and heavy operators stay calls."""
    from torch._inductor import config, metrics

    monkeypatch.setattr(config, "force_disable_caches", True)  # what was compiled before is not counted

    folder = bundles["gqa_prefill"]
    plain = load_program(folder / "model.pt2").module()
    run = looped(load_program(folder / "model.pt2").module(), HostGraphs(), ops)
    before = metrics.generated_kernel_count
    for given in list(calls(folder))[:2]:
        for found, expected in zip(run(*given), plain(*given), strict=True):
            assert (found.double() - expected.double()).abs().max() <= 1e-5 * expected.abs().max().clamp(min=1)
    assert 0 < metrics.generated_kernel_count - before <= 24  # of about a hundred


def test_what_the_driver_is_asked_for_and_in_which_order() -> None:
    cu = pytest.importorskip("cuda.bindings.driver")
    driver, torch_ = NotingDriver(cu), FakeTorch()
    graphs = CudaGraphs(torch_, driver)
    flag, ran = torch.ones((), dtype=torch.bool), []
    with graphs.private():
        executable = graphs.capture_while(flag, lambda: ran.append(len(driver.calls)))
    assert torch_.waited == ["own", "current"]
    assert driver.order == [
        *("cuModuleLoadData", "cuModuleGetFunction"),
        *("cuGraphCreate", "cuCtxGetCurrent", "cuGraphConditionalHandleCreate", "cuGraphAddKernelNode"),
        *("cuGraphAddNode", "cuStreamBeginCaptureToGraph", "cuLaunchKernel", "cuStreamEndCapture"),
        "cuGraphInstantiate",
    ]
    begun = driver.order.index("cuStreamBeginCaptureToGraph")
    assert ran == [begun + 1]  # the work is captured, and the condition is set behind it
    assert driver.arguments("cuModuleLoadData") == (CONDITION.read_bytes(),)
    assert driver.arguments("cuGraphConditionalHandleCreate")[2:] == (0, 1)  # no iteration, unless the flag says so
    _, dependencies, _, count, node = driver.arguments("cuGraphAddNode")
    assert len(dependencies) == count == 1  # the flag is read before the first iteration
    assert node.type == cu.CUgraphNodeType.CU_GRAPH_NODE_TYPE_CONDITIONAL
    assert node.conditional.type == cu.CUgraphConditionalNodeType.CU_GRAPH_COND_TYPE_WHILE
    assert (int(node.conditional.handle), node.conditional.size) == (77, 1)
    *grid, shared, stream, arguments, extra = driver.arguments("cuLaunchKernel")
    assert grid[1:] == [1] * 6 and (shared, stream, extra) == (0, 11, 0)
    assert arguments[0] == (77, flag.data_ptr())
    graphs.launch(executable)
    assert driver.calls[-1] == ("cuGraphLaunch", (executable.handle, 22))
    graphs.free(executable)
    assert driver.order[-2:] == ["cuGraphExecDestroy", "cuGraphDestroy"]


def test_a_capture_ends_when_its_work_fails_and_the_driver_is_quoted() -> None:
    cu = pytest.importorskip("cuda.bindings.driver")
    driver = NotingDriver(cu)
    graphs = CudaGraphs(FakeTorch(), driver)

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        graphs.capture(fail)
    assert driver.order[-1] == "cuStreamEndCapture"
    driver.fails = "cuGraphInstantiate"
    with pytest.raises(RuntimeError, match="cuGraphInstantiate failed: .*NOT_SUPPORTED"):
        graphs.capture(lambda: None)


def test_the_condition_is_compiled_for_every_generation() -> None:
    """Its source is beside it; the file is a fat binary of the four."""
    content = CONDITION.read_bytes()
    assert content[:4] == bytes.fromhex("50ed55ba") and content.count(b"\x7fELF") == 4
    assert b"cudaGraphSetConditional" in content and CONDITION.with_suffix(".cu").exists()
