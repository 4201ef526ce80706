"""How quality and cost of a bundle depend on depth; see `__main__.py`."""
