"""The golden data, and bundles exported from it when a test first asks for one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from filelock import FileLock

from mythos_export import export
from mythos_export.verify import run
from mythos_model.pretrained import folder

GOLDEN = Path(__file__).parent / "golden"
SHIPPED_HOPS = "shipped hops"
_STAGES = run.STAGES


class Bundles(dict[str, Path]):
    """Bundles for ONNX by the name of their golden case, or SHIPPED_HOPS; exported when first asked for.

    A name may end in a precision, and in what the caches are: "gqa_decode, int8", "gqa_decode, fp32, int8".

    `folder` may be shared by the processes of one test run: each bundle is exported by one of them.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __missing__(self, case: str) -> Path:
        name, precision, cache = (*case.split(", "), None, None)[:3]
        golden = next((GOLDEN / name).glob("*.pt"), GOLDEN / name / "model.safetensors")
        source = folder("hops") if name == SHIPPED_HOPS else golden
        path = self.folder / case
        with FileLock(self.folder / f"{case}.lock"):
            if not path.exists():
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(run, "STAGES", _STAGES)  # whatever the test that asks first has made of them
                    export(source, path, target="onnx", precision=precision, cache=cache, **config_of(name))
        self[case] = path
        return path


def config_of(case: str) -> dict[str, dict[str, object]]:
    """The keyword argument `config` for a golden case; none where the checkpoint brings its own."""
    description = GOLDEN / case / "case.json"
    return {"config": json.loads(description.read_text())["config"]} if description.exists() else {}
