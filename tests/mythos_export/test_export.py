"""The main job end to end: checkpoints in, verified bundles out, and what happens when it cannot be done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from golden_bundles import GOLDEN, Bundles, config_of
from safetensors.numpy import load_file
from text_bundles import EOS, byte_level

from mythos_export import export
from mythos_export.cli import export_command, mythos
from mythos_export.errors import ParityError
from mythos_export.kernels.text import OPSET
from mythos_model import MythosConfig, MythosModel, save_checkpoint
from mythos_runtime import load, read_manifest
from mythos_runtime.op_library import find_op_library, why_no_op_library

PREFILL = ["gqa_never_halts", "gqa_prefill", "mla_all_halt_at_once", "mla_deeper_than_trained", "mla_prefill"]


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.fixture(params=["native kernels", "function bodies"])
def op_library(request: pytest.FixtureRequest) -> Path | None:
    """Both ways to compute the operators in ONNX Runtime; a bundle has to run without the library."""
    if request.param == "function bodies":
        return None
    library = find_op_library()
    if library is None:
        pytest.skip(why_no_op_library())
    return library


@pytest.mark.parametrize("case", [*PREFILL, "training_checkpoint"])
def test_golden_cases_through_the_bundle(case: str, bundles: Bundles, op_library: Path | None) -> None:
    model = load(bundles[case], op_library=op_library)
    io = load_file(GOLDEN / case / "io.safetensors")
    loops = json.loads((GOLDEN / case / "case.json").read_text())["n_loops"] if config_of(case) else None
    out = model.forward(io["input_ids"].astype(np.int64), max_loops=loops)
    assert relative(out.logits, io["logits"]) <= 2e-5
    assert np.array_equal(out.depth, io["halting_depth"])
    assert out.loops == out.depth.max()


def test_hops_at_and_beyond_its_trained_depth(bundles: Bundles, op_library: Path | None) -> None:
    model = load(bundles["hops"], op_library=op_library)
    io = load_file(GOLDEN / "hops" / "io.safetensors")
    for loops in (10, 16):
        out = model.forward(io["input_ids"].astype(np.int64), max_loops=loops)
        assert relative(out.logits[:, -1], io[f"logits_last_{loops}"]) <= 2e-5
        assert np.array_equal(out.depth, io[f"halting_depth_{loops}"])


def test_loops_are_those_that_were_needed(bundles: Bundles) -> None:
    model = load(bundles["mla_prefill"])
    ids = load_file(GOLDEN / "mla_prefill" / "io.safetensors")["input_ids"].astype(np.int64)
    assert model.forward(ids, max_loops=0).loops == 0
    assert model.forward(ids, max_loops=9, halt_threshold=1e9).loops == 9
    at_once = load(bundles["mla_all_halt_at_once"]).forward(ids % 128, max_loops=9)
    assert at_once.loops == at_once.depth.max() < 9


@pytest.mark.parametrize("case", ["mla_decode", "gqa_decode"])
def test_token_by_token_with_a_cache(case: str, bundles: Bundles, op_library: Path | None) -> None:
    model = load(bundles[case], op_library=op_library)
    description = json.loads((GOLDEN / case / "case.json").read_text())
    io = load_file(GOLDEN / case / "io.safetensors")
    ids = io["input_ids"].astype(np.int64)
    cache = model.new_cache(batch=ids.shape[0], capacity=ids.shape[1], max_loops=description["n_loops"])
    cuts = [description["prefill"], *range(description["prefill"] + 1, ids.shape[1] + 1)]
    start = 0
    for end in cuts:
        out = model.forward(ids[:, start:end], cache=cache)
        difference = np.abs(out.logits - io["logits"][:, start:end]).max()
        assert difference <= 2e-5 * np.abs(io["logits"]).max()
        assert np.array_equal(out.depth, io["halting_depth"][:, start:end])
        start = end


def test_the_graph_keeps_one_loop_and_bodies_for_its_operators(bundles: Bundles) -> None:
    graph = onnx.load(bundles["mla_prefill"] / "model.onnx", load_external_data=False)
    assert [node.op_type for node in graph.graph.node].count("Loop") == 1
    assert {function.name for function in graph.functions} == {"moe", "mla_attention", "act_halting"}
    assert {entry.domain for entry in graph.opset_import} >= {"", "mythos"}
    assert next(entry.version for entry in graph.opset_import if entry.domain == "") == OPSET


def test_nothing_in_a_bundle_tells_of_the_machine_that_made_it(bundles: Bundles) -> None:
    for file in bundles["mla_prefill"].rglob("*"):
        if file.is_file():
            assert str(Path(__file__).parents[2]).encode() not in file.read_bytes(), file.name


@pytest.mark.parametrize("attention", ["gqa", pytest.param("mla", marks=pytest.mark.slow)])
def test_a_folder_as_the_hub_has_it_becomes_a_bundle_that_chats(attention: str, tmp_path: Path) -> None:
    """The configuration of the reference's README, with random weights."""
    config = MythosConfig(
        vocab_size=1000,
        dim=256,
        n_heads=8,
        n_kv_heads=2,
        max_seq_len=128,
        max_loop_iters=4,
        prelude_layers=1,
        coda_layers=1,
        attn_type=attention,  # type: ignore[arg-type]
        kv_lora_rank=32,
        q_lora_rank=64,
        qk_rope_head_dim=16,
        qk_nope_head_dim=16,
        v_head_dim=16,
        n_experts=8,
        n_shared_experts=1,
        n_experts_per_tok=2,
        expert_dim=64,
        lora_rank=8,
    )
    folder = save_checkpoint(tmp_path / "random", config, MythosModel(config).reset_parameters(3).reference_state())
    pytest.importorskip("tokenizers", reason="tokenizers is not installed: pip install tokenizers")
    byte_level(folder / "tokenizer.json")
    template = "{% for m in messages %}{{ m.content }}<|end|>{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 7, "max_new_tokens": 4}))
    exported = export(folder, tmp_path / "bundle")
    assert exported.parity.passed
    assert exported.manifest.tokenizer is not None
    assert exported.manifest.tokenizer.eos == (7, EOS)
    bundle = str(tmp_path / "bundle")
    tokenizer = load(bundle).tokenizer
    assert tokenizer is not None
    ids = ",".join(map(str, tokenizer.encode("x" * 20 + "<|end|>", special=False)))
    answers = []
    for prompt in (["--chat", "--prompt", "x" * 20], ["--ids", ids]):
        result = CliRunner().invoke(mythos, ["run", bundle, *prompt, "--ignore-eos", "--json"])
        assert result.exit_code == 0, result.output
        answers.append(json.loads(result.stdout.splitlines()[-1]))
    assert answers[0]["text"] == answers[1]["text"] == tokenizer.decode(answers[0]["tokens"])
    assert len(answers[0]["tokens"]) == 4


@pytest.mark.slow
def test_engine_with_caches_of_4096_tokens(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install tensorrt-rtx-cu13")
    tiny = json.loads((GOLDEN / "mla_decode" / "case.json").read_text())["config"]
    config = MythosConfig(**{**tiny, "max_seq_len": 8192})
    folder = save_checkpoint(tmp_path / "random", config, MythosModel(config).reset_parameters(1).reference_state())
    exported = export(folder, tmp_path / "bundle", "tensorrt", sm="75,89", context="0:1024:4096")
    target = exported.manifest.target("tensorrt")
    assert target is not None
    assert target.state == "built, not executed"
    assert [engine["sm"] for engine in target.details["engines"]] == [[89], [75]]
    past = {profile["name"]: profile["shapes"]["past_loop"] for profile in target.details["profiles"]}
    assert {name: shapes[2][2] for name, shapes in past.items()} == {"prefill": 4096, "decode": 4096}


def test_tensorrt_engine_from_the_command_line(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install tensorrt-rtx-cu13")
    bundle = tmp_path / "out"
    source = str(GOLDEN / "training_checkpoint" / "step_0000010.pt")
    result = CliRunner().invoke(export_command, [source, "--target", "tensorrt", "-o", str(bundle), "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout.splitlines()[-1])
    assert document["targets"] == {"onnx": "verified", "tensorrt": "built, not executed"}
    engine = next((bundle / "engines").glob("*.engine"))
    assert engine.read_bytes()[:4] == b"vtrt"
    shown = CliRunner().invoke(mythos, ["inspect", str(bundle)])
    assert shown.exit_code == 0
    assert "no engine was executed" in " ".join(shown.output.split())
    from mythos_runtime.tensorrt import engines

    assert [(found.library, found.sm) for found in engines(read_manifest(bundle))] == [("tensorrt_rtx", (86, 89, 120))]
    checked = CliRunner().invoke(mythos, ["verify", str(bundle), "--json"])
    assert json.loads(checked.stdout.splitlines()[-1])["verdict"] == "pass"
    stages = json.loads(checked.stdout.splitlines()[-1])["stages"]
    assert [stage["name"] for stage in stages] == [
        "eager",
        "program",
        "onnx",
        "onnx, CPU kernels",
        "rows",
        "rows, CPU kernels",
        "onnx reference",
        "tensorrt graph",
        "tensorrt network",
        "tensorrt engine",
        "kernels",
    ]
    states = {stage["name"]: stage["state"] for stage in stages}
    assert states["tensorrt network"] == "pass"
    assert states["onnx, CPU kernels"] == ("pass" if find_op_library() else "not run")
    assert {"reports/parity.html", "reports/parity.json"} <= read_manifest(bundle).files.keys()


def test_wrong_requests_are_one_line_and_exit_code_2(tmp_path: Path) -> None:
    source = GOLDEN / "training_checkpoint" / "step_0000010.pt"
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "diary.txt").write_text("mine")
    (tmp_path / "empty.pt").touch()
    for arguments, words in (
        ([str(tmp_path / "absent.pt")], "there is no checkpoint"),
        ([str(tmp_path / "empty.pt")], "is empty"),
        ([str(source), "--variant", "1b"], "does not fit its configuration"),
        ([str(source), "--weights-key", "ema"], "no weights under 'ema'"),
        ([str(source), "--config", str(source), "--variant", "1b"], "both name the model's configuration"),
        ([str(source), "-o", str(tmp_path / "taken")], "--force"),
        ([str(source), "-o", str(tmp_path / "taken"), "--force"], "not a bundle"),
        ([str(source), "--sm", "86"], "it goes with --target tensorrt"),
        ([str(source), "--plugins"], "it goes with --target tensorrt"),
        ([str(source), "--target", "tensorrt", "--sm", "75", "--plugins"], "no kernels for SM 75"),
        ([str(source), "--target", "tensorrt", "--sm", "90"], "90"),
        ([str(source), "--target", "tensorrt", "--precision", "int4"], "it goes with --target onnx"),
    ):
        where = [] if "-o" in arguments else ["-o", str(tmp_path / "bundle")]
        result = CliRunner().invoke(export_command, [*arguments, *where])
        assert result.exit_code == 2, (arguments, result.output)
        assert words in result.stderr.replace("\n", ""), (arguments, result.stderr)
        assert "Traceback" not in result.stderr
    assert (tmp_path / "taken" / "diary.txt").read_text() == "mine"
    assert not (tmp_path / "bundle").exists()


def test_a_wrong_result_is_exit_code_1_and_no_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant a defect in a function body: gate and up swapped."""
    from mythos_export.kernels.moe import function

    right = function._swiglu

    def swapped(result: str, *rest: object) -> str:
        return right(result, *rest).replace(f"{result}_gate, {result}_up =", f"{result}_up, {result}_gate =")  # type: ignore[arg-type]

    monkeypatch.setattr(function, "_swiglu", swapped)
    with pytest.raises(ParityError, match="stage onnx does not compute what .* iteration 1, .* begins at mythos::moe"):
        export(GOLDEN / "training_checkpoint" / "step_0000010.pt", tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == [tmp_path / "bundle.repro"]


@pytest.mark.slow
def test_a_killed_export_leaves_no_bundle(tmp_path: Path) -> None:
    source = str(GOLDEN / "training_checkpoint" / "step_0000010.pt")
    command = [sys.executable, "-c", "from mythos_export.cli import export_command; export_command()", source]
    process = subprocess.Popen([*command, "-o", str(tmp_path / "bundle")], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(".bundle.*/bundle/golden.safetensors")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "bundle").exists()
