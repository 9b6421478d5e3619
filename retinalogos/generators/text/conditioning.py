"""Text → features: a frozen text encoder by name, and the scale on which the generator sees its features."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from retinalogos.captions.tokens import resolve_text_encoder
from retinalogos.errors import UsageError


class TextConditioning(ModelMixin, ConfigMixin):
    """Standardises token features per channel, and their mean over a caption likewise.

    Sentence encoders put captions that differ in one decisive word close together: with MiniLM the pooled features of
    a "left eye" and a "right eye" differ by a seventh of their own size. Standardised over the training captions, what
    all captions share is gone and such a difference is as large as any other. The defaults are the identity, for
    backbones that were pre-trained on the encoder's raw features.
    """

    @register_to_config
    def __init__(self, dim: int):
        super().__init__()
        for name, fill in (("token_mean", 0.0), ("token_std", 1.0), ("pooled_mean", 0.0), ("pooled_std", 1.0)):
            setattr(self, name, nn.Parameter(torch.full((dim,), fill), requires_grad=False))

    def forward(self, text_bnd: Tensor, mask_bn: Tensor) -> tuple[Tensor, Tensor]:
        """Raw features B×N×D and mask B×N (1 = token) to standardised tokens B×N×D and pooled B×D."""
        mask = mask_bn.unsqueeze(-1).to(text_bnd.dtype)
        pooled = (text_bnd * mask).sum(1) / mask.sum(1).clamp(min=1)
        tokens = (text_bnd - self.token_mean) / self.token_std * mask
        return tokens, (pooled - self.pooled_mean) / self.pooled_std

    @classmethod
    def fit(cls, captions: Sequence[Tensor]) -> "TextConditioning":
        """Fits to the raw features of captions, each N×D.

        Channels that hardly vary are not blown up: the standard deviation is floored at a tenth of the mean one.
        """
        tokens = torch.cat([caption.float() for caption in captions])
        pooled = torch.stack([caption.float().mean(0) for caption in captions])
        model = cls(tokens.shape[1])
        with torch.no_grad():
            for name, values in (("token", tokens), ("pooled", pooled)):
                std = values.std(0, correction=0)
                getattr(model, f"{name}_mean").copy_(values.mean(0))
                getattr(model, f"{name}_std").copy_(std.clamp(min=max(0.1 * float(std.mean()), 1e-3)))
        return model


@dataclass(frozen=True)
class TextEncoder:
    """A frozen text encoder and its tokenizer.

    Args:
        name: as in params, e.g. ``minilm`` or ``google/gemma-2b``.
        budget: most tokens of a caption, special tokens included; longer ones are refused by :meth:`encode`.
    """

    name: str
    tokenizer: Any
    model: Any
    budget: int
    layer: int

    @property
    def dim(self) -> int:
        """Width of a token's features."""
        return int(self.model.config.hidden_size)

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Texts to raw features B×N×D (float32) and mask B×N, padded on the right to the longest.

        Raises:
            UsageError: a text is longer than the budget.
        """
        tokens = self.tokenizer(list(texts), padding=True, padding_side="right", return_tensors="pt")
        lengths = tokens["attention_mask"].sum(1)
        if int(lengths.max()) > self.budget:
            longest = texts[int(lengths.argmax())]
            raise UsageError(
                f"the text {longest[:60]!r}… has {int(lengths.max())} tokens, over the budget of {self.budget}: "
                "shorten it, or raise caption.token_budget and train again"
            )
        tokens = tokens.to(self.model.device)
        hidden = self.model(**tokens, output_hidden_states=True).hidden_states[self.layer]
        return hidden.float(), tokens["attention_mask"]


def load_text_encoder(name: str, budget: int, layer: int, device: str | torch.device = "cpu") -> TextEncoder:
    """Loads a text encoder by name (``minilm``), folder or name on the hub; bfloat16 where there is a GPU.

    Args:
        name: see :func:`retinalogos.captions.tokens.resolve_text_encoder`.
        budget: most tokens of a caption.
        layer: which hidden state is taken: −1 the last, −2 the one before (Lumina takes it of Gemma).
        device: where it runs.

    Raises:
        UsageError: no such folder and not to be had from the hub.
    """
    source = resolve_text_encoder(name)
    dtype = torch.bfloat16 if torch.device(device).type == "cuda" else torch.float32
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        model = AutoModel.from_pretrained(source, dtype=dtype).eval().requires_grad_(False).to(device)
    except OSError as error:
        raise UsageError(f"text encoder {name}: no such folder and not to be had from the hub ({error})") from None
    return TextEncoder(name, tokenizer, model, budget, layer)
