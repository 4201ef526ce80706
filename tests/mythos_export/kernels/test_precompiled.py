"""Kernels that a bundle brings: they are launched as they are, or what is in the way is said. No GPU has run them."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from interpreted_driver import InterpretedDriver
from operator_cases import OperatorCase, cache_inputs
from paged_cases import paged_inputs, with_int8_pages
from product_cases import moe_inputs

from mythos_export.kernels import eager, precompiled, triton_build
from mythos_export.kernels.launch_plan import KernelSpec
from mythos_export.kernels.linear import plan as linear_plan
from mythos_export.kernels.op import OPERATORS
from mythos_export.kernels.precompiled import OtherGpu, Precompiled
from mythos_runtime import torch_device
from mythos_runtime.errors import BackendMissing, BundleError
from mythos_runtime.files import describe
from mythos_runtime.session import Options

LACK = triton_build.missing()
pytestmark = pytest.mark.skipif(LACK is not None, reason=str(LACK))


def written(folder: Path, specs: list[KernelSpec]) -> Path:
    """As `triton_build` writes them, for the stand-in's GPU: the code of a kernel is its name."""
    kernels = []
    for spec in specs:
        file = folder / f"{spec.name}.cubin"
        file.write_bytes(spec.name.encode())
        binary = {"architecture": "sm_80", "entry": "entry", "shared_bytes": 0}
        binary["cubin"] = {"file": file.name, **vars(describe(file))}
        kernels.append({**spec.to_json(), "binaries": [binary]})
    (folder / "kernels.json").write_text(json.dumps({"architectures": ["sm_80"], "kernels": kernels}))
    return folder


@pytest.fixture
def no_others() -> Iterator[None]:
    precompiled.forget()
    yield
    precompiled.forget()


def moe_case() -> OperatorCase:
    return OperatorCase("moe", moe_inputs(1, 3, 8, 4, 2, 5, 6), {})


def gqa_case() -> OperatorCase:
    q = np.random.default_rng(0).standard_normal((2, 3, 4, 6)).astype(np.float32)
    cache = cache_inputs(3, 2, 3, 5, 24)
    inputs = {"q": q, **cache, "chunk": np.nan_to_num(cache["chunk"], nan=3.0)}
    return OperatorCase("gqa_attention", inputs, {"scale": 0.25, "kv_heads": 2})


def int8_pages_case() -> OperatorCase:
    inputs = with_int8_pages(paged_inputs(3, [(33, 2), (0, 1)], 24, 1, np.float32), (6,) * 4)
    q = np.random.default_rng(0).standard_normal((4, 4, 6)).astype(np.float32)
    return OperatorCase("paged_gqa_attention", {"q": q, **inputs}, {"scale": 0.25, "kv_heads": 2})


@pytest.mark.parametrize("make", [moe_case, gqa_case, int8_pages_case])
def test_what_a_bundle_brings_is_launched(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_others: None
) -> None:
    """The same result without Triton's compiler; a kernel that is not the very same one is left to it."""
    from mythos_export.kernels import triton_run
    from mythos_export.kernels.gqa.triton import gqa_attention
    from mythos_export.kernels.moe.triton import moe
    from mythos_export.kernels.paged_gqa.triton import paged_gqa_attention

    case = make()
    plans = OPERATORS[case.op].plans
    assert plans is not None
    chosen = plans(case.call, "fp32")
    specs = list({spec.name: spec for plan in chosen for spec in plan.launches}.values())
    driver = InterpretedDriver(specs)
    launched: list[str] = []
    launch = Precompiled.launch

    def noted(self: Precompiled, spec: KernelSpec, addresses: Any, sizes: Any, stream: int) -> None:
        launched.append(spec.name)
        launch(self, spec, addresses, sizes, stream)

    def seen(plan: Any, buffers: dict[str, torch.Tensor], sizes: Any) -> None:
        """The stand-in's memory is what the call's buffers are; scratch memory, too."""
        made = torch.empty

        def kept(*arguments: Any, **options: Any) -> torch.Tensor:
            tensor = made(*arguments, **options)
            driver.memory[tensor.data_ptr()] = tensor
            return tensor

        driver.memory |= {buffer.data_ptr(): buffer for buffer in buffers.values()}
        with monkeypatch.context() as patch:
            patch.setattr(torch, "empty", kept)
            execute(plan, buffers, sizes)

    execute = triton_run.execute
    monkeypatch.setattr(Precompiled, "launch", noted)
    for module in ("moe", "gqa", "paged_gqa"):
        monkeypatch.setattr(f"mythos_export.kernels.{module}.triton.execute", seen)
    assert precompiled.use(written(tmp_path, specs), driver) == len(specs)
    run = {"moe": moe, "gqa_attention": gqa_attention, "paged_gqa_attention": paged_gqa_attention}[case.op]
    tensors = {k: torch.from_numpy(np.ascontiguousarray(v)).reshape(v.shape) for k, v in case.inputs.items()}

    def distance(given: dict[str, torch.Tensor]) -> float:
        found = run(**given, **case.attributes)
        return case.distance(tuple(each.numpy() for each in (found if isinstance(found, tuple) else (found,))))

    assert distance(tensors) < 1e-5
    assert len(launched) >= 2 and set(launched) <= {spec.name for spec in specs}
    launched.clear()
    name = {"moe": "x", "gqa_attention": "chunk", "paged_gqa_attention": "q"}[case.op]
    odd = torch.empty(tensors[name].numel() + 1)[1:].view(tensors[name].shape).copy_(tensors[name])
    assert odd.data_ptr() % 16  # not where a compiled kernel was promised that it is
    assert distance({**tensors, name: odd}) < 1e-5
    readers = {spec.name for spec in specs if any(argument.value == name for argument in spec.arguments)}
    assert readers and not readers & set(launched)
    changed = json.loads((tmp_path / "kernels.json").read_text())
    for kernel in changed["kernels"]:
        kernel["num_warps"] = 16
    (tmp_path / "kernels.json").write_text(json.dumps(changed))
    precompiled.use(tmp_path, driver)
    assert all(precompiled.find(spec) is None for spec in specs)


def test_a_damaged_kernel_does_not_reach_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does a file from elsewhere; the folder is found wherever the process is by then."""
    plans = OPERATORS["moe"].plans
    assert plans is not None
    spec = plans(moe_case().call, "fp32")[0].launches[0]
    (tmp_path / "kernels").mkdir()
    written(tmp_path / "kernels", [spec])
    monkeypatch.chdir(tmp_path)
    ready = Precompiled(Path("kernels"), InterpretedDriver())
    monkeypatch.chdir("/")
    binary, file = ready._binaries[spec.name], tmp_path / "kernels" / f"{spec.name}.cubin"
    assert ready._image(binary) == spec.name.encode()
    file.write_bytes(spec.name.encode()[:-1])
    with pytest.raises(BundleError, match=rf"{spec.name}.cubin has \d+ bytes, .*: it is cut off"):
        ready.launch(spec, {}, {}, 0)
    file.write_bytes(b"?" * len(spec.name))
    with pytest.raises(BundleError, match="its SHA-256 differs"):
        ready.launch(spec, {}, {}, 0)
    shutil.copy(file, tmp_path / "other")
    binary["cubin"]["file"] = "../other"
    with pytest.raises(BundleError, match="may not stand in a manifest"):
        ready.launch(spec, {}, {}, 0)


def test_another_gpu_is_named(tmp_path: Path) -> None:
    (tmp_path / "kernels.json").write_text(json.dumps({"architectures": ["sm_90"], "kernels": []}))
    driver = InterpretedDriver()
    with pytest.raises(OtherGpu, match="compiled for sm_90, this GPU is sm_80: export again with --target"):
        Precompiled(tmp_path, driver)


def test_a_gpu_without_the_numbers_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from mythos_export.kernels.triton_run import check_format

    on_a_gpu: Any = SimpleNamespace(device=torch.device("cuda", 0))
    for capability, fine in (((8, 9), True), ((9, 0), True), ((8, 6), False)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        check_format("linear", "int8", on_a_gpu)
        with contextlib.nullcontext() if fine else pytest.raises(ValueError, match="from SM 89 on, .* is SM 86: exp"):
            check_format("linear", "fp8", on_a_gpu)


def test_a_bundle_of_numbers_that_a_gpu_lacks_is_refused_when_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_others: None
) -> None:
    """With stand-ins for the device: none of this touches one."""
    formats = {form: linear_plan.plans(64, 64, 32, form, "fp32") for form in ("fp8", "int8")}
    for name, plans in formats.items():
        (tmp_path / name / "kernels").mkdir(parents=True)
        written(tmp_path / name / "kernels", [spec for plan in plans for spec in plan.launches])
    driver, zeros = InterpretedDriver(), torch.zeros
    entries: Any = [SimpleNamespace(load=lambda: eager.register)]
    groups = {torch_device.KERNELS_ENTRY_POINT: entries, torch_device.OPERATORS_ENTRY_POINT: []}
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: groups[group])
    monkeypatch.setattr(eager, "_register", lambda device: "Triton kernels")
    monkeypatch.setattr(eager, "CudaDriver", lambda: driver)
    monkeypatch.setattr(torch, "zeros", lambda *shape, device: zeros(*shape))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("MYTHOS_TRITON", raising=False)

    def opened(bundle: str, provider: Any = "auto") -> list[str]:
        return torch_device.open_device(tmp_path / bundle, Options(provider=provider)).operators

    for capability in (80, 86):
        monkeypatch.setattr(driver, "capability", lambda found=capability: found)
        said = f"fp8 are fp8, .* from SM 89 on, and this GPU is SM {capability}: export with --precision int8"
        with pytest.raises(BackendMissing, match=said):
            opened("fp8")
        assert "Triton kernels" in opened("int8")[0]
    monkeypatch.setattr(driver, "capability", lambda: 89)
    assert opened("fp8")[0].startswith("Triton kernels, compiled here: ")  # the stand-in's are for SM 80
    monkeypatch.setattr(driver, "capability", lambda: 80)
    monkeypatch.setenv("MYTHOS_TRITON", "none")
    assert opened("fp8") == ["plain PyTorch (MYTHOS_TRITON is none)"]
