"""Pages of int8 lines: what they hold, what they take, and that the engine over them computes the rounding model."""

from __future__ import annotations

import numpy as np
import torch
from row_models import POSITIONS, RowModel, config
from test_core import LIMIT, THRESHOLD, feed, ids_of
from test_exact import hold_to_alone

from mythos_model import MythosModel
from mythos_model.cache_lines import unpack
from mythos_runtime.engine.memory import Memory, bytes_per_position


def test_computes_what_the_rounding_model_computes(int8_row_model: RowModel) -> None:
    """Token by token. A value that is near the middle of two integers may go either way, which is why what the cache
    holds may differ by a step here and there, and logits by what that makes of them."""
    core, ids = int8_row_model.core(), ids_of(1, POSITIONS)
    with torch.no_grad():
        model, given = int8_row_model.model, torch.tensor(ids)[None]
        asked = dict(max_loops=LIMIT, halt_threshold=THRESHOLD, early_exit=False)
        rounded = model(given, **asked)
        plain = MythosModel(config("mla")).eval()
        plain.load_state_dict(model.state_dict())
        whole = plain(given, **asked)
    sequence = core.open(LIMIT, THRESHOLD)
    answers = [feed(core, [(sequence, ids[at : at + 1])])[0] for at in range(POSITIONS)]
    logits = np.stack([answer.logits[0] for answer in answers])
    expected, other = rounded.logits[0].numpy(), whole.logits[0].numpy()
    off = np.linalg.norm(logits - expected)
    assert off < 0.2 * np.linalg.norm(expected - other)  # which is what rounding moves
    depth = np.array([answer.depth[0] for answer in answers])
    assert (depth == rounded.depth[0].numpy()).mean() > 0.97

    assert core.around is not None
    group = model.spec.cache("layers")
    assert group is not None
    held = unpack(torch.from_numpy(core.around.read(sequence.around, POSITIONS)), group.rounded, torch.float32)
    made = rounded.new["layers"][:, 0]  # [layers, positions, width]
    assert (held - made).abs().max() < 0.02 * made.abs().max()
    core.close(sequence)


def test_any_schedule_gives_what_each_request_gets_alone(int8_row_model: RowModel) -> None:
    hold_to_alone(int8_row_model, 2)


def test_a_position_takes_a_byte_for_a_value_and_two_for_a_scale(int8_row_model: RowModel) -> None:
    spec = int8_row_model.model.spec
    plain = MythosModel(config("mla")).spec
    width, lines = 16 + 8, 2 + 5  # latent and rotary key; layers around the loop, and loops
    states = bytes_per_position(plain, 5) - 4 * width * lines
    assert bytes_per_position(spec, 5) - states == (width + 2 * 2) * lines
    memory, other = (Memory.of(each, 1 << 20, 5) for each in (spec, plain))
    assert memory.positions > other.positions
    assert memory.around is not None and memory.around.memory.dtype == np.int8
    assert memory.bytes == memory.positions * bytes_per_position(spec, 5) <= 1 << 20
