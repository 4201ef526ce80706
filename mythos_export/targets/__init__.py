"""What a bundle can be compiled to: a class for each target (`target.py`), and one registry (`registry.py`)."""
