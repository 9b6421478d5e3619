"""FLAIR and RetiZero in a few thousand random weights: networks with the names and the arithmetic of the published
ones, written here a second time, and checkpoints of them in the published layouts.
"""

import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoTokenizer, BertConfig, BertModel, BertTokenizerFast

DIMENSION, RANK, SIDE = 6, 2, 64
_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "fundus", "photograph", "of", "left", "right", "eye", "the", "."]


class Bottleneck(nn.Module):
    """As torchvision's: the stride is in the middle convolution."""

    def __init__(self, width: int, inner: int, out: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, out, 1, bias=False), nn.BatchNorm2d(out)
        if stride > 1 or width != out:
            self.downsample = nn.Sequential(nn.Conv2d(width, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(y)))))
        return F.relu(y + (self.downsample(x) if hasattr(self, "downsample") else x))


class Residual(nn.Module):
    """A residual network with torchvision's names, of two blocks and one."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8)
        self.layer1 = nn.Sequential(Bottleneck(8, 4, 16, 1), Bottleneck(16, 4, 16, 1))
        self.layer2 = nn.Sequential(Bottleneck(16, 8, 32, 2))

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.layer2(self.layer1(x)).mean((2, 3))


class AdaptedQkv(nn.Module):
    """Adapters of queries and values, as RetiZero's."""

    def __init__(self, width: int):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.linear_a_q, self.linear_b_q = nn.Linear(width, RANK, bias=False), nn.Linear(RANK, width, bias=False)
        self.linear_a_v, self.linear_b_v = nn.Linear(width, RANK, bias=False), nn.Linear(RANK, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return torch.cat([q + self.linear_b_q(self.linear_a_q(x)), k, v + self.linear_b_v(self.linear_a_v(x))], -1)


class Attention(nn.Module):
    """Of two heads."""

    def __init__(self, width: int):
        super().__init__()
        self.qkv, self.proj = AdaptedQkv(width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Of a vision transformer with timm's names."""

    def __init__(self, width: int):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width, eps=1e-6), Attention(width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        layers = OrderedDict(fc1=nn.Linear(width, 2 * width), act=nn.GELU(), fc2=nn.Linear(2 * width, width))
        self.mlp = nn.Sequential(layers)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """A vision transformer of two blocks, of whose tokens the first is the answer."""

    def __init__(self, width: int = 128, patch: int = 16):
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.pos_embed = nn.Parameter(torch.randn(1, (SIDE // patch) ** 2 + 1, width))
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, width, patch, patch)
        self.blocks = nn.Sequential(Block(width), Block(width))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed.proj(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        return self.norm(self.blocks(x))[:, 0]


class Published(nn.Module):
    """The whole model with the published names, and its answers by the published arithmetic, one input at a time."""

    def __init__(self, folder: Path, retizero: bool):
        super().__init__()
        torch.manual_seed(5)
        self._tokenizer, self._retizero = AutoTokenizer.from_pretrained(folder), retizero
        network = Transformer() if retizero else Residual()
        for norm in (part for part in network.modules() if isinstance(part, nn.BatchNorm2d)):
            nn.init.normal_(norm.running_mean, std=0.1)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
        self.vision_model, self.text_model = nn.Module(), nn.Module()
        self.vision_model.model = network
        if retizero:
            self.vision_model.model = nn.Module()
            self.vision_model.model.lora_vit = network
        self._network = [network]  # not a second place in the state dict
        self.text_model.model = BertModel.from_pretrained(folder)
        self.vision_model.projection_head_vision = nn.Module()
        self.vision_model.projection_head_vision.projection = nn.Linear(128 if retizero else 32, DIMENSION, bias=False)
        self.text_model.projection_head_text = nn.Module()
        self.text_model.projection_head_text.projection = nn.Linear(16, DIMENSION, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(2.5))
        self.eval()

    @torch.inference_mode()
    def image(self, picture: np.ndarray) -> Tensor:
        """Of a square picture of the model's own size."""
        x = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
        if self._retizero:
            moments = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
            x = (x - moments[0]) / moments[1]
        return self._head(self._network[0](x), self.vision_model.projection_head_vision)

    @torch.inference_mode()
    def text(self, text: str) -> Tensor:
        """Of one text, so that nothing is padded."""
        read = self._tokenizer([f"A fundus photograph of {text}"], truncation=True, max_length=77, return_tensors="pt")
        states = self.text_model.model(**read, output_hidden_states=True).hidden_states
        together = torch.stack([states[1], states[2], states[-1]]).permute(1, 0, 2, 3).mean(2).mean(1)
        return self._head(together, self.text_model.projection_head_text)

    @staticmethod
    def _head(x: Tensor, head: nn.Module) -> Tensor:
        x = head.projection(x / x.norm(dim=-1, keepdim=True))
        return (x / x.norm(dim=-1, keepdim=True))[0]


def save_text_model(folder: Path) -> Path:
    """A BERT of three layers with its words, as a hub repository has it."""
    torch.manual_seed(3)
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(_WORDS))
    BertTokenizerFast(vocab={word: i for i, word in enumerate(_WORDS)}).save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(_WORDS), **sizes)).save_pretrained(folder)
    return folder


def save_checkpoint(model: Published, path: Path) -> Path:
    """The state dict as the authors share it (``.pth``), or a folder as the hub has it."""
    weights = model.state_dict()
    if path.suffix == ".pth":
        # Releases of transformers of that time stored the numbers of the places too.
        torch.save(weights | {"text_model.model.embeddings.position_ids": torch.arange(512)[None]}, path)
        return path
    path.mkdir(parents=True)
    save_file({name: value.contiguous() for name, value in weights.items()}, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps({"image_size": SIDE, "proj_dim": DIMENSION, "proj_bias": False}))
    return path
