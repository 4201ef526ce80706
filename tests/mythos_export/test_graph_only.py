"""Graphs without weights: once the files are there that they refer to, they compute what the model does; and what they
take does not grow with the model."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort  # type: ignore[import-untyped]
import pytest
import torch
from click.testing import CliRunner
from golden_bundles import GOLDEN, config_of
from golden_families import GoldenCase

from mythos_export import graph_only
from mythos_export.cli import export_command
from mythos_export.errors import LowerError
from mythos_export.graph_only import COMPUTED, LINKS, STATE, export_graphs
from mythos_export.references import Compositions, Place
from mythos_export.tensor_file import header
from mythos_export.verify.past import Past
from mythos_model import MythosConfig, families, load_checkpoint
from mythos_model.looped import LoopedModel
from mythos_model.weights import Sources

CASE = "gqa_prefill"


def _with_files(folder: Path, graph: str) -> onnx.ModelProto:
    """A graph with what its references say read from the files, as any runtime would."""
    model = onnx.load(folder / f"{graph}.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        if tensor.external_data:
            said = {entry.key: entry.value for entry in tensor.external_data}
            with (folder / said["location"]).open("rb") as file:
                file.seek(int(said["offset"]))
                tensor.raw_data = file.read(int(said["length"]))
            del tensor.external_data[:]
            tensor.data_location = onnx.TensorProto.DEFAULT
    return model


def test_written_files_make_the_graph_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_only, "capture_rows", lambda model: None)  # as long again; the slow test has them
    checkpoint = load_checkpoint(GOLDEN / CASE / "model.safetensors", **config_of(CASE))
    told = export_graphs(None, tmp_path / "graphs", config={"model_type": "openmythos"} | checkpoint.config.to_dict())
    assert (told.absent, told.files) == (1, 1)
    links = json.loads((told.path / LINKS).read_text())
    assert links["state"] == STATE and set(links["weights"]) == set(checkpoint.state)
    for name, entry in links["weights"].items():
        with (told.path / entry["file"]).open("ab") as file:
            pass
        with (told.path / entry["file"]).open("r+b") as file:
            file.seek(entry["offset"])
            file.write(checkpoint.state[name].contiguous().view(torch.uint8).numpy().tobytes())
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    session = ort.InferenceSession(
        _with_files(told.path, "model").SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    model = checkpoint.model(torch.float32)
    ids = np.random.default_rng(0).integers(0, model.spec.vocab_size, (1, 5))
    inputs = Past.empty(model.spec, 1, 0, 3).inputs(ids, [5], 3, early_exit=False)
    names = [port.name for port in model.spec.ports.outputs]
    found = dict(zip(names, session.run(names, inputs), strict=True))
    expected = model.run({name: torch.from_numpy(np.asarray(value)) for name, value in inputs.items()})
    for name in names:
        true = expected[name].numpy()
        assert np.abs(found[name] - true).max(initial=0) <= 2e-5 * max(np.abs(true).max(initial=0), 1), name


def test_what_a_checkpoint_does_not_hold_as_the_model_does_is_refused() -> None:
    """Experts are put together in the graph; anything else that is done to a tensor cannot be said there."""
    family = next(family for family in families.FAMILIES if family.name == "openmythos")
    config = MythosConfig.variant("1b")
    places = {name: Place(Path("x"), 0, torch.float32, shape) for name, shape in family.shapes(config).items()}
    compositions = Compositions(family, config, places)
    down = compositions["recurrent.block.ffn.shared_down"]
    assert down.axis == 1 and down.names[0].endswith("shared_experts.0.down.weight")
    gate_up = compositions["recurrent.block.ffn.routed_gate_up"].names
    ends = [".0.gate.weight", ".0.up.weight", ".1.gate.weight", ".1.up.weight"]
    assert all(name.endswith(end) for name, end in zip(gate_up, ends, strict=False))
    compositions._sources = Sources.plain({"turned": compositions._sources["norm.weight"].T})
    with pytest.raises(LowerError, match="turned of openmythos is not in the checkpoint.s files as the model has it"):
        compositions["turned"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--graph-only", "--precision", "int4", "--variant", "1b"], "fp32 or fp16 graphs, not int4"),
        (["--graph-only"], "needs --variant or --config"),
        (["--graph-only", "--verify", "full", "--variant", "1b"], "--verify means nothing to --graph-only"),
        (["--graph-only", "--exit", "kl", "--variant", "1b"], "--exit say what to take of a checkpoint"),
        (["--graph-only", "--eos", "2", "--variant", "1b"], "--eos means nothing to --graph-only"),
        (["--graph-only", "--parts", "none", "--variant", "1b"], "--parts means nothing to --graph-only"),
        (["--graph-only", "--force", "--variant", "1b"], "--force means nothing to --graph-only"),
        (["--graph-only", "--variant", "1b", "--weights", "copy"], "--weights copy means nothing"),
        ([], "Missing argument"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_before_any_work(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(export_command, arguments)
    assert result.exit_code == 2
    assert any(part in result.output.replace("\n", " ") for part in words.split("|")), result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("case", ["huginn_decode", "parcae_linear_injection"])
def test_a_family_that_turns_its_weights_is_refused_before_any_work(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def capture(model: LoopedModel) -> None:
        raise AssertionError("it was captured")

    monkeypatch.setattr(graph_only, "capture", capture)
    folder = GoldenCase.load(case).folder
    with pytest.raises(LowerError, match="is not in the checkpoint's files as the model has it.*without --graph-only"):
        export_graphs(folder, tmp_path / "graphs")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_model_without_shared_experts(tmp_path: Path) -> None:
    """Its shared experts are tensors of no elements, which no file holds."""
    config = json.loads((GOLDEN / "gqa_prefill" / "case.json").read_text())["config"]
    config |= {"model_type": "openmythos", "n_shared_experts": 0}
    told = export_graphs(None, tmp_path / "graphs", config=config)
    assert told.absent == told.files and "model" in told.graphs


_MEASURED = """
import json, re, sys
from pathlib import Path
from mythos_export.graph_only import export_graphs
told = export_graphs(sys.argv[2] or None, sys.argv[1], variant=sys.argv[3])
peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1e6
print(json.dumps({**told.to_json(), "peak": peak}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize("variant", ["10b", "1t"])
def test_memory_does_not_grow_with_the_weights(variant: str, tmp_path: Path) -> None:
    """10b from a checkpoint that is there, a sparse file; 1t from nothing."""
    checkpoint = ""
    config = MythosConfig.variant(variant)
    if variant == "10b":
        folder = tmp_path / "checkpoint"
        folder.mkdir()
        family, _ = families.variant(variant)
        head, places = header({name: (torch.float32, shape) for name, shape in family.shapes(config).items()})
        with (folder / "model.safetensors").open("wb") as file:
            file.write(head)
            file.truncate(max(end for _, end in places.values()))
        (folder / "config.json").write_text(json.dumps(config.to_dict()))
        checkpoint = str(folder)
    made = subprocess.run(
        [sys.executable, "-c", _MEASURED, str(tmp_path / "graphs"), checkpoint, variant],
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(made.stdout.splitlines()[-1])
    assert told["peak"] < 2 and told["absent"] == (told["files"] if variant == "1t" else 0)
    assert told["bytes"] >= 4 * config.parameter_count()
    computed = tmp_path / "graphs" / COMPUTED
    assert sum(each.stat().st_size for each in (tmp_path / "graphs").iterdir() if each != computed) < 8e6
    assert math.isclose(told["bytes"], 4 * config.parameter_count(), rel_tol=1e-6)
