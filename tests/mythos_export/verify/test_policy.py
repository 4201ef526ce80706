"""What a policy costs is counted against the exact one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from golden_bundles import Bundles
from safetensors.numpy import load_file, save_file

from mythos_export.cli import mythos
from mythos_export.errors import CasesError
from mythos_export.verify.policy import cost_of_policy
from mythos_model.pretrained import folder
from mythos_runtime import load


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    data = load_file(folder("hops") / "held_out.safetensors")
    easy = np.flatnonzero(data["hops"] <= 8)[:: len(data["hops"]) // 12]
    save_file({name: data[name][easy] for name in ("input_ids", "answer")}, tmp_path / "data.safetensors")
    return tmp_path / "data.safetensors"


def test_the_exact_policy_costs_nothing(bundles: Bundles, questions: Path) -> None:
    cost = cost_of_policy(bundles["hops"], "full", questions)
    assert (cost.changed, cost.bits, cost.divergence) == (0, cost.exact_bits, 0)
    assert cost.answered == cost.exact_answered == cost.answers
    assert cost.depth == cost.exact_depth
    assert cost.rows > cost.exact_rows


def test_sharing_ruins_a_model_that_was_not_trained_for_it(bundles: Bundles, questions: Path) -> None:
    done = CliRunner().invoke(
        mythos, ["verify", str(bundles["hops"]), "--policy", "share", "--data", str(questions), "--json"]
    )
    assert done.exit_code == 0, done.output
    cost = json.loads(done.stdout.splitlines()[-1])
    assert cost["exact_answered"] == cost["answers"] > cost["answered"]
    assert cost["bits"] > cost["exact_bits"]
    assert cost["rows"] < cost["exact_rows"]
    assert f"of {cost['answers']} answers {cost['answered']} are right" in " ".join(done.stdout.split())
    ids = load_file(questions)["input_ids"][:1].astype(np.int64)
    with load(bundles["hops"]) as model:
        depth = model.forward(ids).depth
    alone = questions.with_name("one.safetensors")
    save_file({"input_ids": ids}, alone)
    assert cost_of_policy(bundles["hops"], "share", alone).exact_depth == depth.mean()


def test_data_that_is_none(bundles: Bundles, tmp_path: Path) -> None:
    data = tmp_path / "data.safetensors"
    with pytest.raises(CasesError, match="expected a safetensors file with input_ids"):
        cost_of_policy(bundles["hops"], "share", data)
    save_file({"input_ids": np.zeros((3, 1), np.int64)}, data)
    with pytest.raises(CasesError, match=r"two tokens or more, found \[3, 1\]"):
        cost_of_policy(bundles["hops"], "share", data)
    done = CliRunner().invoke(mythos, ["verify", str(bundles["hops"]), "--policy", "share"])
    assert "--policy and --data go together" in done.output
