"""A vision-language model of a real class in a few kilobytes, that has learned to answer about two pictures."""

import io
import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from retinalogos.captions.prompts import Prompt, load_prompt

TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_SPECIAL = ["<|pad|>", "<|end|>", "<image>", "<|system|>", "<|user|>", "<|assistant|>"]
_SIZE, _PATCH = 16, 8
_WIDTH = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
DARK, BRIGHT = 0, 255


def picture(shade: int) -> bytes:
    """A PNG of one shade."""
    buffer = io.BytesIO()
    Image.new("RGB", (_SIZE, _SIZE), (shade, shade, shade)).save(buffer, "PNG")
    return buffer.getvalue()


def answer(eye: str, lesion: str) -> dict[str, Any]:
    """An answer by the schema."""
    return {
        "quality": "good",
        "laterality": eye,
        "disc": "The optic disc appears healthy.",
        "cup": {"ratio": 0.4, "description": ""},
        "vessels": "",
        "macula": "The macula appears flat.",
        "nerve_fibre_layer": "",
        "lesions": [{"name": lesion, "place": "in the macula", "amount": "a few"}],
        "diagnosis": ["no sign of glaucoma"],
    }


# What the model has learned to say of either picture.
SEEN = {DARK: answer("left", "drusen"), BRIGHT: answer("left", "hard exudates")}
RECORD = {"image_id": "00", "eye": "left"}


def write_model(folder: Path) -> None:
    """Writes model, processor and chat template, as a hub repository has them."""
    torch.manual_seed(0)
    prompt = load_prompt("record-1")
    tokenizer = _tokenizer(prompt)
    side = {"height": _SIZE, "width": _SIZE}
    processor = LlavaProcessor(
        CLIPImageProcessor(size=side, crop_size=side),
        tokenizer,
        patch_size=_PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=CLIPVisionConfig(**_WIDTH, image_size=_SIZE, patch_size=_PATCH, projection_dim=64),
            text_config=LlamaConfig(
                **_WIDTH, vocab_size=len(tokenizer), max_position_embeddings=4096, eos_token_id=1, pad_token_id=0
            ),
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        )
    )
    _teach(model, processor, prompt)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def write_language_model(folder: Path) -> None:
    """Writes an untaught language model that takes no pictures, with its tokenizer and chat template."""
    torch.manual_seed(0)
    tokenizer = _tokenizer(load_prompt("record-1"))
    tokenizer.chat_template = (
        "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}<|assistant|>"
    )
    LlamaForCausalLM(LlamaConfig(**_WIDTH, vocab_size=len(tokenizer), eos_token_id=1, pad_token_id=0)).save_pretrained(
        folder
    )
    tokenizer.save_pretrained(folder)


def _tokenizer(prompt: Prompt) -> PreTrainedTokenizerFast:
    texts = [message["content"] for message in prompt.messages(RECORD)] + [json.dumps(a) for a in SEEN.values()]
    bare = Tokenizer(BPE())
    # Not split into words, so that the long prompt is a few long tokens and the model learns in seconds.
    bare.pre_tokenizer, bare.decoder = ByteLevel(add_prefix_space=False, use_regex=False), ByteLevelDecoder()
    trainer = BpeTrainer(vocab_size=1500, special_tokens=_SPECIAL, initial_alphabet=ByteLevel.alphabet())
    bare.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bare, pad_token="<|pad|>", eos_token="<|end|>", extra_special_tokens={"image_token": "<image>"}
    )
    tokenizer.add_special_tokens({"additional_special_tokens": _SPECIAL[3:]})
    return tokenizer


def _teach(model: Any, processor: Any, prompt: Prompt) -> None:
    conversations = []
    for shade, said in SEEN.items():
        system, user = prompt.messages(RECORD, {"type": "image", "image": Image.open(io.BytesIO(picture(shade)))})
        conversations.append(
            [
                {**system, "content": [{"type": "text", "text": system["content"]}]},
                user,
                {"role": "assistant", "content": [{"type": "text", "text": json.dumps(said)}]},
            ]
        )
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "processor_kwargs": {"padding": True}}
    inputs = processor.apply_chat_template(conversations, **options)
    labels_bt = inputs["input_ids"].clone()
    start = (labels_bt == processor.tokenizer.convert_tokens_to_ids("<|assistant|>")).int().argmax(dim=1)
    for row, first in enumerate(start):
        labels_bt[row, : first + 1] = -100
    labels_bt[inputs["attention_mask"] == 0] = -100
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(60):
        loss = model(**inputs, labels=labels_bt).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
