"""A CLIPModel of a few thousand random weights, saved like a published one; for tests."""

from pathlib import Path

import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTextConfig,
    CLIPTokenizerFast,
    CLIPVisionConfig,
)

WORDS = 12


def save_tiny_clip(folder: Path) -> Path:
    """Writes the model and its processor; the tokenizer knows single letters."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizerFast(vocab={token: i for i, token in enumerate(tokens)}, merges=[])
    torch.manual_seed(0)
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    end = len(tokens) - 1
    text = CLIPTextConfig(
        **tower, vocab_size=len(tokens), max_position_embeddings=WORDS, eos_token_id=end, bos_token_id=end - 1
    )
    vision = CLIPVisionConfig(**tower, image_size=32, patch_size=16)
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8)
    CLIPModel(config).save_pretrained(folder)
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(images, tokenizer).save_pretrained(folder)
    return folder
