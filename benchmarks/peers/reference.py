"""The reference's way of computing, in eager PyTorch (`benchmarks/reference_semantics.py`)."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.reference_semantics import Cache, ReferenceSemantics
from mythos_export.bench.backends.backend import Backend, Call, Outcome, Setting
from mythos_export.bench.workloads import Case
from mythos_model import load_checkpoint
from mythos_model.looped import LAYERS, LOOP


class Reference(Backend):
    name = "reference in eager PyTorch"

    def missing(self, setting: Setting) -> str | None:
        if setting.checkpoint is None:
            return "it starts from a checkpoint, and none was named"
        attention = load_checkpoint(setting.checkpoint).config.attn_type
        return None if attention == "mla" else f"its attention is written for MLA, the model has {attention.upper()}"

    def load(self, setting: Setting) -> str:
        assert setting.checkpoint is not None
        torch.set_num_threads(setting.threads)
        loaded = load_checkpoint(setting.checkpoint)
        self.config = loaded.config
        self.model = ReferenceSemantics(loaded.config, dict(loaded.state))
        return f"torch {torch.__version__}, Python double loop over experts, keys and values made per head and token"

    def prepare(self, case: Case) -> Call:
        ids, workload = torch.from_numpy(case.ids), case.workload
        threshold = self.config.act_threshold if case.threshold is None else case.threshold
        if workload.kind == "prefill":
            return lambda: Outcome(self.model.forward(ids, case.loops, threshold)[:, -1].numpy(), None)
        filled = self._cache(case)
        held = workload.held
        return lambda: Outcome(self.model.forward(ids, case.loops, threshold, dict(filled), held)[:, -1].numpy(), None)

    def _cache(self, case: Case) -> Cache:
        """The case's entries as the reference keeps them: the latent before its norm, the rotary key once per head.

        Entries are normed already; divided by the norm's weight they have a mean square of 1, so that norming them
        again gives the same.
        """
        layers, before = case.past[LAYERS], self.config.prelude_layers
        names = [f"prelude_{i}" for i in range(before)] + [f"coda_{i}" for i in range(len(layers) - before)]
        parts = [(name, name.replace("_", ".") + ".attn", layers[i]) for i, name in enumerate(names)]
        parts += [(f"loop_{t}", "recurrent.block.attn", entries) for t, entries in enumerate(case.past[LOOP])]
        return {key: self._entry(module, entries) for key, module, entries in parts}

    def _entry(self, module: str, entries: np.ndarray) -> dict[str, torch.Tensor]:
        latent, key = torch.from_numpy(entries).split([self.config.kv_lora_rank, self.config.qk_rope_head_dim], -1)
        weight = self.model.get_parameter(f"{module}.kv_norm.weight").detach()
        heads = key.unsqueeze(2).expand(-1, -1, self.config.n_heads, -1).contiguous()
        return {"c_kv": latent / weight, "k_rope": heads}
