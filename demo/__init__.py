"""Data and training of the demonstration model: written material in, LoRA adapter out."""
