"""Load on `mythos serve` (`python -m benchmarks.serving`), and mixed traffic for a long time (`soak.py`)."""
