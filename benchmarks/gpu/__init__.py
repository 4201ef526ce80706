"""What this project has for a GPU, run part by part on a machine that has one: `make bench-gpu`.

    python -m benchmarks.gpu --out FOLDER [--seconds 400] [--parts environment,kernels,...]
    python -m benchmarks.gpu --out FOLDER --dry-run      # no GPU: small sizes, Triton's interpreter

Each part is a process of its own with a limit: one that fails, hangs or crashes costs only itself. What it has found is
saved after every step. `pack` makes what a machine without a network lacks. No part has run on a GPU yet; the dry run
is a test.
"""
