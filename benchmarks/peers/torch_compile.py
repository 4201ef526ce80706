"""torch.compile (inductor) of the model in plain PyTorch.

Each block and the loop's step are compiled, and Python drives them, as is usual for deep models (regional
compilation): a loop whose length depends on data breaks a graph of the whole. Weights are frozen into the code
(`freezing`), so that inductor may lay them out anew for its products; shapes are static.
"""

from __future__ import annotations

import warnings

import torch

from benchmarks.peers.plain import CompiledPeer, Form, forms_for, per_expert, plain_model
from mythos_export.bench.backends.backend import Call, Outcome, Setting, port_arrays
from mythos_export.bench.workloads import Case
from mythos_model import MythosModel


class TorchCompile(CompiledPeer):
    name = "torch.compile"

    def lacks(self) -> str | None:
        return cpp_compiler_missing()

    def load(self, setting: Setting) -> str:
        import torch._dynamo.config
        import torch._inductor.config

        warnings.simplefilter("ignore")
        torch.set_num_threads(setting.threads)
        torch._inductor.config.freezing = True
        torch._dynamo.config.cache_size_limit = 256
        self.setting = setting
        self.models: dict[str, MythosModel] = {}
        return f"torch {torch.__version__}, inductor, freezing, static shapes, each block and the loop's step compiled"

    def compile(self, case: Case) -> str:
        form = forms_for(case)[0]
        # Sizes that depend on data would be compiled anew for each; that part stays eager, inside a compiled step.
        eager = form is per_expert
        self.models[case.workload.name] = self._compiled(torch.compiler.disable(form) if eager else form)
        self.prepare(case)()
        return f"experts {form.__name__}{' in eager mode' if eager else ''}"

    def _compiled(self, form: Form) -> MythosModel:
        assert self.setting.checkpoint is not None
        model = plain_model(self.setting.checkpoint, form)
        model.step = torch.compile(model.step, dynamic=False)  # type: ignore[method-assign]
        for block in (*model.prelude, *model.coda):
            block.forward = torch.compile(block.forward, dynamic=False)  # type: ignore[method-assign]
        return model

    def prepare(self, case: Case) -> Call:
        model = self.models[case.workload.name]
        ports = {name: torch.as_tensor(array) for name, array in port_arrays(case, model.spec).items()}

        def call() -> Outcome:
            with torch.no_grad():
                out = model.run(ports)
            return Outcome(out["logits"][:, -1].numpy(), int(out["loops"]))

        return call


def cpp_compiler_missing() -> str | None:
    """Inductor compiles C++; without a compiler it cannot run."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return "inductor needs a C++ compiler: apt-get install g++"
    return None
