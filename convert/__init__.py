"""Checkpoint and LoRA to GGUF."""
