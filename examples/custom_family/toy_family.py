"""A family of looped models in one file, as somebody outside of the project would write it.

    python examples/custom_family/toy_family.py

No prelude and no coda: one block that is looped until its own gate says that it is enough. Run as a program it
registers the family, exports a model with random weights, verified like any other, and generates with it.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mythos_export import export
from mythos_model import families
from mythos_model.attention import GroupedQueryAttention, Past
from mythos_model.blocks import Embedding, RMSNorm, Rotary, SwiGLU
from mythos_model.exits import Exit, Quantile
from mythos_model.families.family import Family, own_fields
from mythos_model.looped import LoopedModel
from mythos_model.ops import accumulation_dtype
from mythos_model.state import Context, Lines, Sizes
from mythos_runtime import load


@dataclass(frozen=True)
class ToyConfig:
    vocab: int = 50
    width: int = 24
    heads: int = 2
    loops: int = 3

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Toy(LoopedModel):
    family: ClassVar[str] = "toy"

    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        D = config.width
        self.config, self.embed, self.gate = config, Embedding(config.vocab, D), Quantile(D, 0.6)
        self.norms = nn.ModuleList(RMSNorm(D, 1e-5) for _ in range(3))
        self.attention, self.ffn = GroupedQueryAttention(D, config.heads, 1, D // config.heads), SwiGLU(D, 2 * D)

    @property
    def exit(self) -> Exit:
        return self.gate

    @property
    def sizes(self) -> Sizes:
        return Sizes(self.config.vocab, self.config.width, self.config.width, 64, 32, self.config.loops)

    def angles(self, positions: Tensor, past_lengths: Tensor) -> Past:
        wide = accumulation_dtype(self.dtype)
        return Past(positions, past_lengths, Rotary.at(positions, self.config.width // self.config.heads, 1e4, wide))

    def encode(self, ids: Tensor, lines: Lines, past: Past) -> Tensor:
        return self.embed(ids)  # type: ignore[no-any-return]

    def advance(self, h: Tensor, iteration: Tensor, lines: Lines, context: Context) -> Tensor:
        h = h + lines.attend(self.attention, self.norms[0](h), context.past)
        return h + self.ffn(self.norms[1](h))  # type: ignore[no-any-return]

    def finish(self, answer: Tensor, lines: Lines, past: Past) -> Tensor:
        return answer

    def readout(self, x: Tensor) -> Tensor:
        return self.embed.logits(self.norms[2](x))


FAMILY = Family(
    name="toy",
    model=Toy,
    configuration=ToyConfig,
    model_types=("toy",),
    class_names=(),
    marks=("gate.gate.weight", "attention.wq.weight"),
    read_config=lambda given, shapes: ToyConfig(**own_fields(ToyConfig, given)),
    shapes=lambda config: {name: tuple(weight.shape) for name, weight in Toy(config).state_dict().items()},
)


def main() -> None:
    families.register(FAMILY)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as temporary:
        checkpoint = Path(temporary) / "checkpoint"
        checkpoint.mkdir()
        save_file(Toy(ToyConfig()).state_dict(), checkpoint / "model.safetensors")
        (checkpoint / "config.json").write_text(json.dumps({"model_type": "toy", **ToyConfig().to_dict()}))
        bundle = export(checkpoint, Path(temporary) / "bundle")
        print(f"{bundle.manifest.spec.family}: {bundle.manifest.targets[0].state}")
        with load(bundle.path) as model:
            result = model.generate_all([[1, 2, 3]], max_new_tokens=8)
    print(f"tokens {result.tokens[0]}, loops {result.depth[0]}")


if __name__ == "__main__":
    main()
