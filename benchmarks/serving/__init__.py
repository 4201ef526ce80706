"""`mythos serve` under load (`python -m benchmarks.serving`) and for a long time (`python -m benchmarks.serving.soak`)."""
