"""`--weights link`: a bundle whose weights stay in the checkpoint computes what the model does, in both runtimes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from cpp_programs import RUN, cpp

from mythos_export import export
from mythos_export.cli import export_command
from mythos_export.linked import find_links
from mythos_export.verify.cases import Question
from mythos_export.verify.locate import locate
from mythos_export.verify.past import Past
from mythos_export.verify.stages import Bundle, FunctionBodies
from mythos_export.verify.truth import Truth
from mythos_export.weights_file import INLINE_BYTES
from mythos_model import MythosConfig, MythosModel, load_checkpoint, save_checkpoint
from mythos_runtime import BundleError, load
from mythos_runtime.engine import Request, open_engine
from mythos_runtime.engine.options import EngineOptions
from mythos_runtime.linked import open_links
from mythos_runtime.manifest import read_manifest
from mythos_runtime.op_library import find_op_library
from mythos_runtime.session import Options

# An expert's matrices are whole pages, as those of real sizes are.
CONFIG = dataclasses.replace(
    MythosConfig.variant("1b"),
    **dict(vocab_size=300, dim=64, n_heads=2, n_kv_heads=1, max_seq_len=64, max_loop_iters=4, max_output_tokens=32),
    **dict(prelude_layers=1, coda_layers=1, kv_lora_rank=32, q_lora_rank=32, qk_rope_head_dim=8, qk_nope_head_dim=16),
    **dict(v_head_dim=16, n_experts=4, n_experts_per_tok=2, expert_dim=16),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, and the bundle that refers to it."""
    folder = tmp_path_factory.mktemp("linked")
    save_checkpoint(folder / "checkpoint", CONFIG, MythosModel(CONFIG).reset_parameters(0).reference_state())
    export(folder / "checkpoint", folder / "bundle", weights="link", verification="later")
    return folder


def moved(made: Path, to: Path) -> Path:
    return Path(shutil.copytree(made, to)) / "bundle"


@pytest.mark.filterwarnings("ignore::mythos_runtime.errors.NotVerified")
def test_it_computes_what_the_model_does_and_moves_with_its_weights(made: Path, tmp_path: Path) -> None:
    bundle = moved(made, tmp_path / "elsewhere")
    checkpoint = load_checkpoint(made / "checkpoint")
    manifest = read_manifest(bundle)
    assert manifest.links is not None and [each.path for each in manifest.links.files] == [
        "../checkpoint/model.safetensors"
    ]
    ids = np.arange(1, 8)[None]
    with load(bundle, threads=1) as model, torch.no_grad():
        expected = checkpoint.model(torch.float32)(torch.from_numpy(ids)).logits.numpy()
        for cache in (None, model.new_cache(1, 8)):  # the whole model's graph, and the rows'
            logits = model.forward(ids, cache=cache).logits
            assert np.abs(logits - expected).max() <= 2e-5 * np.abs(expected).max()
        tokens = model.generate_all(ids, max_new_tokens=6).tokens[0]
    if RUN.is_file():
        options = ("--ids", ",".join(map(str, ids[0])), "--max-new-tokens", "6", "--threads", "1", "--json")
        ran = cpp(RUN, bundle, *options)
        assert ran.returncode == 0, ran.stderr
        assert json.loads(ran.stdout.splitlines()[-1])["tokens"] == list(tokens)


def test_nothing_of_what_is_linked_is_in_the_bundle(made: Path) -> None:
    checkpoint = load_checkpoint(made / "checkpoint")
    links = find_links(checkpoint.family.model.structure(checkpoint.config, torch.float32), checkpoint)
    shared = CONFIG.dim * CONFIG.shared_ffn_dim * 4  # the one matrix whose parts lie side by side
    whole = {name: tensor.nbytes for name, tensor in checkpoint.model().state_dict().items()}
    assert links.bytes == sum(size for size in whole.values() if size > INLINE_BYTES) - shared
    manifest = read_manifest(made / "bundle")
    assert manifest.links is not None and manifest.links.tensors == links.tensors
    assert manifest.files["weights.safetensors"].bytes < shared + 1000
    state = checkpoint.model(torch.float32).state_dict()
    for name, array in open_links(made / "bundle", manifest.links).items():
        assert np.array_equal(array, state[name].numpy()), name


@pytest.mark.skipif(find_op_library() is None, reason="the native operators are not built: make native")
@pytest.mark.filterwarnings("ignore::mythos_runtime.errors.NotVerified")
def test_a_request_gets_its_own_bits_in_any_company(made: Path) -> None:
    """ONNX Runtime's products with matrices that it does not hold depend on how many rows there are."""
    prompts = [np.random.default_rng(n).integers(0, 300, n).tolist() for n in (5, 33, 1, 17)]

    def bits(together: list[list[int]], row: int = 0) -> list[list[bytes]]:
        engine = open_engine(made / "bundle", EngineOptions(memory=1 << 23), options=Options(1))
        running = [engine.submit(Request(ids, 8, row=row + i)) for i, ids in enumerate(together)]
        found: dict[int, list[bytes]] = {id(each): [] for each in running}
        while engine.busy:
            for token in engine.tick():
                found[id(token.running)].append(token.logits.tobytes())
        return [found[id(each)] for each in running]

    assert bits(prompts) == [bits([ids], row)[0] for row, ids in enumerate(prompts)]


def told(bundle: Path, *options: str) -> list[str]:
    """What both runtimes say of a bundle that they refuse."""
    words = []
    given = {"weights": Path(options[1])} if options else {}
    with pytest.raises(BundleError) as caught:
        load(bundle, verify="sizes", engine="python", **given)
    words.append(str(caught.value))
    if RUN.is_file():
        ran = cpp(RUN, bundle, "--ids", "1", "--verify", "sizes", *options)
        assert ran.returncode == 2
        words.append(ran.stderr.splitlines()[-1].removeprefix("error: "))
    return words


@pytest.mark.filterwarnings("ignore::mythos_runtime.errors.NotVerified")
def test_weights_that_are_others_are_refused_in_one_line(made: Path, tmp_path: Path) -> None:
    """Both runtimes, in the same words; and with --verify sizes, which does not put that check off."""
    bundle = moved(made, tmp_path / "elsewhere")
    weights = bundle.parent / "checkpoint/model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert len(set(told(bundle))) == 1 and "is not that of the export" in told(bundle)[0]
    for named in ({}, {"weights": weights}):
        with pytest.raises(BundleError, match="is not that of the export"):
            load(bundle, **named)
    load(bundle, verify="sizes", weights=weights).close()  # whose content the user answers for
    weights.write_bytes(content[:-4])
    assert len(set(told(bundle))) == 1 and "it was changed" in told(bundle)[0]
    weights.unlink()
    assert len(set(told(bundle))) == 1 and "which is not there" in told(bundle)[0]
    assert len(set(told(bundle, "--weights", str(tmp_path)))) == 1
    load(bundle, weights=made / "checkpoint").close()


def test_what_cannot_be_linked_is_refused_in_one_line(made: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(made / "checkpoint")
    half = {name: tensor.half() for name, tensor in checkpoint.state.items()}
    save_checkpoint(tmp_path / "half", CONFIG, half)
    for options, words in (
        ([str(tmp_path / "half")], "stored as float16 and computed with as float32"),
        ([str(made / "checkpoint"), "--precision", "int4"], "int4 weights are in no checkpoint"),
        ([str(made / "checkpoint"), "--expert-shards", "2"], "do not go together"),
        ([str(made / "checkpoint"), "--target", "cuda", "--precision", "int4"], "goes with --target onnx"),
    ):
        result = CliRunner().invoke(export_command, [*options, "--weights", "link", "-o", str(tmp_path / "bundle")])
        assert result.exit_code != 0 and words in result.output.replace("\n", " "), result.output
        assert not (tmp_path / "bundle").exists()


def test_an_operator_is_named_without_the_program(made: Path) -> None:
    """What the portable graph is held to elsewhere, model.pt2, a linked bundle does not have."""
    bundle = Bundle(made / "bundle", read_manifest(made / "bundle"), 1)
    past = Past.empty(bundle.spec, 1, 0, 2)
    truth = Truth(load_checkpoint(made / "checkpoint").model())
    truth.ask(Question("a token", past.inputs(np.array([[5]]), [1], 2)))
    with contextlib.closing(FunctionBodies.open(bundle)) as stage:
        named = locate(stage, bundle, truth.asked[0].case, "h", 0, 1e-6)
    assert named is not None and named.endswith("-> inside/h")
