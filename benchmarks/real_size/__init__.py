"""A model of Ouro-1.4B's size with random weights: time per token by depth, memory, and what llama.cpp needs."""
