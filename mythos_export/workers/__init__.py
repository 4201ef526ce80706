"""Work that gets a process of its own: TensorRT and triton, which can abort theirs, and backends that are timed.

    from mythos_export.workers.near import Worker

    with Worker("mythos_export.kernels.triton_build.worker:Compiler", "triton") as worker:
        answer = worker.ask("compile", progress=show, kernels=..., folder=...)

The name is that of a class in the worker's module; it is made with a function that says, from any thread, how far the
work is (`mythos_export.progress`), and answers by its methods: `ask("compile", ...)` calls `compile(...)` over there
and returns the dictionary that it returned. Both are one JSON document; what stands under the key "arrays" in either,
numpy arrays by name, follows as an .npz (`messages`). The far end is `far`. A worker imports what its own module does
and little else: its memory and its start are that.

Whatever goes wrong over there is raised here: an error of `mythos_export.errors` as what it is, everything else (an
exception, an abort, a signal, time that ran out) as `ToolFailed` with the end of the worker's log.
"""
