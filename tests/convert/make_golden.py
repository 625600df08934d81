"""Writes golden_logits.npz: what transformers computes in float32 for the tiny checkpoints.

    python -m tests.convert.make_golden      (needs torch and transformers)

The default tests compare llama.cpp with these numbers, so that they need neither. Arrays are (len(COMPARED), n_vocab).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from tests.convert.tiny_checkpoints import COMPARED, PROMPTS, TINY, write_tiny

GOLDEN = Path(__file__).with_name("golden_logits.npz")


def reference_logits(folder: Path, prompts=PROMPTS) -> list[np.ndarray]:
    """Logits of all positions of each prompt, from transformers in float32."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    torch.set_num_threads(1)
    is_vision = hasattr(AutoConfig.from_pretrained(folder), "vision_config")
    loader = AutoModelForImageTextToText if is_vision else AutoModelForCausalLM
    model = loader.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    return model_logits(model, prompts)


def model_logits(model, prompts=PROMPTS) -> list[np.ndarray]:
    import torch

    with torch.no_grad():
        return [model(input_ids=torch.tensor([prompt])).logits[0].float().numpy() for prompt in prompts]


def compared(logits: list[np.ndarray]) -> np.ndarray:
    """The rows that are kept."""
    return np.stack([logits[prompt][position] for prompt, position in COMPARED])


def main() -> None:
    golden = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, tiny in TINY.items():
            golden[name] = compared(reference_logits(write_tiny(Path(folder) / name, tiny)))
    np.savez_compressed(GOLDEN, **golden)


if __name__ == "__main__":
    main()
