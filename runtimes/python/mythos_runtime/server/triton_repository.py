"""A model repository for Triton Inference Server: the bundle, a configuration, and a line of Python."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from mythos_runtime.errors import RequestError
from mythos_runtime.manifest import MANIFEST, Manifest
from mythos_runtime.outputs import writing

_MODEL = """\"\"\"Written by mythos package triton-model-repository. The backend's Python needs mythos-runtime.\"\"\"

from mythos_runtime.server.triton_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
"""

_CONFIG = """# Written by mythos package triton-model-repository.
name: {name}
backend: "python"
max_batch_size: 0
model_transaction_policy {{ decoupled: true }}
instance_group [ {{ count: 1, kind: KIND_CPU }} ]

# One of the two. A request's parameters are named as the fields of /v1/completions.
input [
  {{ name: "input_ids", data_type: TYPE_INT64, dims: [ -1 ], optional: true }},
  {{ name: "text", data_type: TYPE_UINT8, dims: [ -1 ], optional: true }}
]

# Of every response; finished is 0, 1 (an end of text) or 2 (max_tokens).
output [
  {{ name: "text", data_type: TYPE_UINT8, dims: [ -1 ] }},
  {{ name: "token_ids", data_type: TYPE_INT64, dims: [ -1 ] }},
  {{ name: "depth", data_type: TYPE_INT32, dims: [ -1 ] }},
  {{ name: "finished", data_type: TYPE_UINT8, dims: [ 1 ] }}
]

parameters [
{parameters}
]
"""


def write_repository(bundle: Path, manifest: Manifest, out: Path, name: str, parameters: dict[str, Any]) -> Path:
    """Write the model `name` into the repository `out`, which may hold others; its folder.

    Args:
        parameters: for the configuration; those that are None are left out.

    Raises:
        RequestError: there is something of that name, or it is no name for a folder.
        StorageError: the disk is full or closed; nothing is left.
    """
    model = out / name
    if name != model.name or name in (".", ".."):
        raise RequestError(f"{name!r} is no name for a model: it is a folder of the repository")
    if model.exists():
        raise RequestError(f"{model} exists; give another name with --name, or remove it")
    made = next((folder for folder in (*reversed(out.parents), out) if not folder.exists()), model)
    try:
        with writing(model, "OUT"):
            _write(bundle, manifest, model, name, parameters)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)  # half of a model is none
        raise
    return model


def _write(bundle: Path, manifest: Manifest, model: Path, name: str, parameters: dict[str, Any]) -> None:
    version = model / "1"
    for file in (MANIFEST, *manifest.files):
        target = version / "bundle" / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle / file, target)
    (version / "model.py").write_text(_MODEL, encoding="utf-8")
    rows = [
        f"  {{ key: {json.dumps(key)}, value: {{ string_value: {json.dumps(str(value))} }} }}"
        for key, value in parameters.items()
        if value is not None
    ]
    config = _CONFIG.format(name=json.dumps(name), parameters=",\n".join(rows))
    (model / "config.pbtxt").write_text(config, encoding="utf-8")
