"""The demo's figures on a few questions; what it says of time is not tested."""

from __future__ import annotations

from golden_bundles import GOLDEN, Bundles
from safetensors.numpy import load_file

import mythos_runtime
from benchmarks.demo import answers_per_second, ask
from mythos_model import MythosModel, load_checkpoint


def test_bundle_eager_and_forced_depth_agree(bundles: Bundles) -> None:
    checkpoint = load_checkpoint(next((GOLDEN / "hops").glob("*.pt")))
    eager = MythosModel.from_state(checkpoint.config, checkpoint.state)
    stored = load_file(GOLDEN / "hops" / "io.safetensors")
    mine = stored["hops"] == 5
    data = {name: stored[name][mine] for name in ("input_ids", "answer", "hops")} | {"trees": stored["hops"][mine]}
    row = ask(mythos_runtime.load(bundles["hops"]), eager, data, max_loops=10)
    assert (row.hops, row.asked, row.eager, row.bundle, row.forced, row.agree) == (5, 8, 1.0, 1.0, 1.0, 1.0)
    assert 5.5 < row.depth < 6.5
    shallow = ask(mythos_runtime.load(bundles["hops"]), eager, data, max_loops=2)
    assert shallow.bundle < 0.6 and shallow.agree == 1.0
    assert answers_per_second([row])[0] == 1 / row.seconds
