"""Triton kernels compiled without a GPU: files, manifest, and what is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from mythos_export.errors import KernelResourceError, TargetError
from mythos_export.kernels import triton_build
from mythos_export.kernels.call import OperatorCall
from mythos_export.kernels.triton_build import (
    build,
    build_for,
    kernels_for,
    plans_for,
)

LACK = triton_build.missing()
pytestmark = pytest.mark.skipif(LACK is not None, reason=str(LACK))

CALLS = (
    OperatorCall(
        "moe",
        shapes={"expert_index": (None, None, 2), "routed_down": (4, 64, 48), "shared_down": (64, 48)},
    ),
    OperatorCall(
        "mla_attention",
        {"scale": 0.25, "v_head_dim": 16},
        {"q_nope": (None, None, 2, 16), "q_rope": (None, None, 2, 16), "kv_up": (64, 32)},
    ),
)


def test_builds_for_an_architecture_that_is_not_here(tmp_path: Path) -> None:
    plans = [plan for plan in plans_for(CALLS, "fp16") if plan.path == "decode"]
    build(list({spec.name: spec for plan in plans for spec in plan.launches}.values()), [80], tmp_path, plans=plans)
    manifest = json.loads((tmp_path / "kernels.json").read_text())
    assert manifest["state"] == "built, not executed"
    assert {kernel["operator"] for kernel in manifest["kernels"]} == {"moe", "mla_attention"}
    launched = {launch for plan in manifest["plans"] for launch in json.dumps(plan).split('"')}
    for kernel in manifest["kernels"]:
        assert kernel["name"] in launched
        for binary in kernel["binaries"]:
            assert binary["spill_store_bytes"] == binary["spill_load_bytes"] == 0 < binary["registers"] <= 255
            for kind, start in (("cubin", b"\x7fELF"), ("ptx", b"//")):
                content = (tmp_path / binary[kind]["file"]).read_bytes()
                assert content.startswith(start)
                assert hashlib.sha256(content).hexdigest() == binary[kind]["sha256"]
                assert binary["entry"].encode() in content


def test_a_kernel_that_spills_fails_the_build(tmp_path: Path) -> None:
    spec = next(spec for spec in kernels_for(CALLS, "fp16") if "prefill_split" in spec.name)
    wide = dataclasses.replace(spec, constants={**spec.constants, "BLOCK_M": 32, "BLOCK_R": 128}, num_warps=1)
    with pytest.raises(KernelResourceError, match="spills registers on sm_80"):
        build([wide], [80], tmp_path)
    assert not (tmp_path / "kernels.json").exists()


def test_unknown_architectures_and_precisions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="61"):
        build_for(CALLS, "fp16", tmp_path, architectures=(61,))
    with pytest.raises(TargetError, match="int8"):
        build_for(CALLS, "int8", tmp_path)
