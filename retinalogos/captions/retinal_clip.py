"""FLAIR and RetiZero: CLIP-type models of the retina, read from the checkpoints that their authors publish.

FLAIR (Silva-Rodríguez et al., Med Image Anal 2025, 99:103357, arXiv 2308.07898; github.com/jusiro/FLAIR) has a
ResNet-50 and Bio_ClinicalBERT. RetiZero (Wang et al., arXiv 2406.09317; github.com/LooKing9218/RetiZero) has the same
text tower and heads, and the ViT-L/16 of RETFound with adapters of low rank. Each vector of a tower is brought to unit
length, projected without a bias, and brought to unit length again.

A checkpoint is one state dict: ``vision_model.model.*`` with the names of torchvision's ResNet, or, behind
``lora_vit.``, those of timm's vision transformer; ``vision_model.projection_head_vision.projection.weight``;
``text_model.model.*`` with the names of transformers' BertModel;
``text_model.projection_head_text.projection.weight``; ``logit_scale``. Sizes are read from the weights. Neither
torchvision nor timm is needed: the weights go into the same networks of transformers. The words of the text tower are
not in the checkpoint and come from its own folder or hub name.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoTokenizer, BertModel, ResNetConfig, ResNetModel, ViTModel
from transformers.utils.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from retinalogos.errors import UsageError
from retinalogos.vision_transformer import from_timm

Weights = dict[str, Tensor]

# Of both repositories' model.py: the words around a text, and how many tokens of it are read.
PROMPT, WORDS = "A fundus photograph of {}", 77
# exp(4.6052) = 100, above which both repositories bound the scale of cosines.
_MAX_LOG_SCALE = 4.6052
# Pixels: FLAIR's own default; its hub folder may say otherwise.
_FLAIR_SIZE = 512
# torchvision's names of a residual network → those of transformers.
_RESNET_NAMES = (
    (r"^conv1\.", "embedder.embedder.convolution."),
    (r"^bn1\.", "embedder.embedder.normalization."),
    (r"^layer(\d)\.(\d+)\.conv(\d)\.", "encoder.stages.{0}.layers.{1}.layer.{2}.convolution."),
    (r"^layer(\d)\.(\d+)\.bn(\d)\.", "encoder.stages.{0}.layers.{1}.layer.{2}.normalization."),
    (r"^layer(\d)\.(\d+)\.downsample\.0\.", "encoder.stages.{0}.layers.{1}.shortcut.convolution."),
    (r"^layer(\d)\.(\d+)\.downsample\.1\.", "encoder.stages.{0}.layers.{1}.shortcut.normalization."),
)


class RetinalImages(nn.Module):
    """The tower of pictures with its projection.

    Args:
        vision: network whose ``pooler_output``, or first token where it has none, is a picture's vector.
        head: weights of the projection, dimension × width.
        size: pixels that pictures are scaled to.
        normalise: whether colours are normalised by ImageNet's moments.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, vision: nn.Module, head: Tensor, size: int, normalise: bool):
        super().__init__()
        self.vision, self.size = vision, size
        self.image_head = nn.Buffer(head.float())
        moments = (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD) if normalise else ([0.0] * 3, [1.0] * 3)
        self.mean, self.deviation = (nn.Buffer(torch.tensor(values)[:, None, None]) for values in moments)
        self.eval().requires_grad_(False)

    @torch.inference_mode()
    def images(self, pictures: Sequence[np.ndarray]) -> Tensor:
        """uint8 pictures, height × width × 3, to unit vectors n×d float32, on the CPU.

        The longer side is scaled to the model's size; what is missing below or to the right is black, as in FLAIR.
        RetiZero would stretch: pictures of a cohort are square, where both are the same.
        """
        batch_bchw = torch.stack([torch.from_numpy(self._fitted(picture)) for picture in pictures])
        batch_bchw = batch_bchw.permute(0, 3, 1, 2).to(self.mean.device).float() / 255
        seen = self.vision(pixel_values=(batch_bchw - self.mean) / self.deviation)
        pooled = getattr(seen, "pooler_output", None)
        return _projected(seen.last_hidden_state[:, 0] if pooled is None else pooled.flatten(1), self.image_head)

    def _fitted(self, picture: np.ndarray) -> np.ndarray:
        image = Image.fromarray(picture)
        longest = max(image.size)
        width, height = (self.size * side // longest for side in image.size)
        canvas = np.zeros((self.size, self.size, 3), np.uint8)
        canvas[:height, :width] = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
        return canvas


class RetinalClip(RetinalImages):
    """Both towers with their projections; see :class:`retinalogos.captions.clip.ClipModel`.

    Args:
        vision: network whose ``pooler_output``, or first token where it has none, is a picture's vector.
        text: BERT.
        heads: weights of the projections of pictures and of texts, dimension × width each.
        log_scale: logarithm of what cosines are multiplied with.
        tokenizer: of the texts.
        size: pixels that pictures are scaled to.
        normalise: whether colours are normalised by ImageNet's moments.
    """

    def __init__(
        self,
        vision: nn.Module,
        text: BertModel,
        heads: tuple[Tensor, Tensor],
        log_scale: float,
        tokenizer: Any,
        size: int,
        normalise: bool,
    ):
        super().__init__(vision, heads[0], size, normalise)
        self.text, self._tokenizer = text, tokenizer
        self.text_head = nn.Buffer(heads[1].float())
        self.scale = float(np.exp(min(max(log_scale, 0.0), _MAX_LOG_SCALE)))
        self.eval().requires_grad_(False)

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Texts to unit vectors n×d float32, on the CPU: the mean over tokens of three layers' states.

        The authors' code counts padding as tokens, so that a text's vector changes with its neighbours in a batch; here
        it is what their code gives for each text alone.
        """
        read = self._tokenizer(
            [PROMPT.format(text) for text in texts],
            truncation=True,
            max_length=WORDS,
            padding=True,
            return_tensors="pt",
        ).to(self.mean.device)
        states = self.text(**read, output_hidden_states=True).hidden_states
        mean_bnd = torch.stack([states[1], states[2], states[-1]]).mean(0)
        mask_bn1 = read["attention_mask"][..., None].float()
        return _projected((mean_bnd * mask_bn1).sum(1) / mask_bn1.sum(1), self.text_head)


def _projected(features_bd: Tensor, head_ed: Tensor) -> Tensor:
    return F.normalize(F.normalize(features_bd.float(), dim=1) @ head_ed.T, dim=1).cpu()


def load_flair(name: str, text_model: str) -> RetinalClip:
    """FLAIR, from the authors' ``.pth``, or from a folder or hub name with ``model.safetensors`` and ``config.json``.

    Args:
        name: file, folder or hub name (``jusiro2/FLAIR``).
        text_model: folder or hub name of the text tower's configuration and words.

    Raises:
        UsageError: nothing of that name can be loaded, or it is not this model.
    """
    weights, settings = _checkpoint(name)
    vision = _tower("flair", name, weights, "conv1.weight", _residual_network)
    return _assembled("flair", name, weights, vision, text_model, int(settings.get("image_size", _FLAIR_SIZE)), False)


def load_flair_images(name: str) -> RetinalImages:
    """The tower of pictures of :func:`load_flair` alone.

    Raises:
        UsageError: nothing of that name can be loaded, or it is not this model.
    """
    weights, settings = _checkpoint(name)
    vision = _tower("flair", name, weights, "conv1.weight", _residual_network)
    try:
        head = weights[f"{_HEADS[0]}.projection.weight"]
    except KeyError as error:
        raise _foreign("flair", f"{name!r}", error) from error
    return RetinalImages(vision, head, int(settings.get("image_size", _FLAIR_SIZE)), False)


def load_retizero(name: str, text_model: str) -> RetinalClip:
    """RetiZero, from the authors' ``.pth``, its adapters merged into the network.

    Args:
        name: file, folder or hub name.
        text_model: as :func:`load_flair`.

    Raises:
        UsageError: nothing of that name can be loaded, or it is not this model.
    """
    weights, _ = _checkpoint(name)
    vision = _tower("retizero", name, weights, "lora_vit.pos_embed", _adapted_transformer)
    return _assembled("retizero", name, weights, vision, text_model, vision.config.image_size, True)


def _checkpoint(name: str) -> tuple[Weights, dict[str, Any]]:
    """All weights, and the settings beside them where the layout has some."""
    try:
        path = Path(name)
        if path.is_file():
            weights = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu")
            return weights, {}
        if not path.is_dir():
            from huggingface_hub import snapshot_download

            path = Path(snapshot_download(name, allow_patterns=["config.json", "model.safetensors"]))
        settings = path / "config.json"
        return load_file(path / "model.safetensors"), json.loads(settings.read_text()) if settings.is_file() else {}
    except Exception as error:  # unpickling, safetensors and the hub each have errors of their own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(
            f"purify.clip.model {name!r}: no checkpoint file or folder, and not to be had from the hub ({reason})"
        ) from error


def _tower(loader: str, name: str, weights: Weights, telling: str, build: Any) -> Any:
    """The network of pictures; ``telling`` is a weight that no other kind of network has."""
    own = {key.removeprefix(_VISION): value for key, value in weights.items() if key.startswith(_VISION)}
    if telling not in own:
        raise UsageError(
            f"purify.clip.model {name!r} is no checkpoint of the loader {loader}: it has no {_VISION}{telling}"
        )
    try:
        return build(own)
    except (RuntimeError, KeyError, ValueError) as error:
        raise _foreign(loader, f"{name!r}", error) from error


_VISION, _TEXT = "vision_model.model.", "text_model.model."


def _assembled(
    loader: str, name: str, weights: Weights, vision: nn.Module, text_model: str, size: int, normalise: bool
) -> RetinalClip:
    try:
        config = AutoConfig.from_pretrained(text_model)
        tokenizer = AutoTokenizer.from_pretrained(text_model)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"purify.clip.text_model {text_model!r}: no such folder and not to be had from the hub ({reason})"
        ) from error
    own = {key.removeprefix(_TEXT): value for key, value in weights.items() if key.startswith(_TEXT)}
    own.pop("embeddings.position_ids", None)  # earlier releases of transformers stored the numbers from 0 on
    text = BertModel(config, add_pooling_layer="pooler.dense.weight" in own)
    try:
        text.load_state_dict(own)
        heads = tuple(weights[f"{tower}.projection.weight"] for tower in _HEADS)
        log_scale = float(weights["logit_scale"])
    except (RuntimeError, KeyError) as error:
        raise _foreign(loader, f"{name!r} with text_model {text_model!r}", error) from error
    return RetinalClip(vision, text, (heads[0], heads[1]), log_scale, tokenizer, size, normalise)


def _foreign(loader: str, what: str, error: Exception) -> UsageError:
    reason = " ".join(str(error).split())[:300]
    return UsageError(f"purify.clip.model {what} is no checkpoint of the loader {loader}: {reason}")


_HEADS = ("vision_model.projection_head_vision", "text_model.projection_head_text")


def _residual_network(own: Weights) -> ResNetModel:
    stages = max(int(key[5]) for key in own if key.startswith("layer"))
    depths = [len({key.split(".")[1] for key in own if key.startswith(f"layer{stage}.")}) for stage in _from_1(stages)]
    config = ResNetConfig(
        embedding_size=own["conv1.weight"].shape[0],
        hidden_sizes=[own[f"layer{stage}.0.conv3.weight"].shape[0] for stage in _from_1(stages)],
        depths=depths,
        layer_type="bottleneck",
    )
    model = ResNetModel(config)
    model.load_state_dict({_renamed(key, _RESNET_NAMES): value for key, value in own.items()})
    return model


def _adapted_transformer(own: Weights) -> ViTModel:
    """Adapters of queries and values are added to the layer's answer as they are, without a scale."""
    weights = {key.removeprefix("lora_vit."): value for key, value in own.items()}
    for start in {key[: key.index("qkv.") + 4] for key in weights if ".attn.qkv." in key}:
        qkv = {key.removeprefix(start): weights.pop(key) for key in list(weights) if key.startswith(start)}
        q, k, v = qkv["qkv.weight"].chunk(3)
        q = q + qkv["linear_b_q.weight"] @ qkv["linear_a_q.weight"]
        v = v + qkv["linear_b_v.weight"] @ qkv["linear_a_v.weight"]
        weights |= {f"{start}weight": torch.cat([q, k, v]), f"{start}bias": qkv["qkv.bias"]}
    return from_timm(weights)


def _from_1(count: int) -> range:
    return range(1, count + 1)


def _renamed(key: str, names: Sequence[tuple[str, str]]) -> str:
    """The name by another library; numbers that torchvision counts from 1 are counted from 0."""
    for pattern, name in names:
        found = re.match(pattern, key)
        if found:
            numbers = [int(number) for number in found.groups()]
            if key.startswith("layer"):
                numbers = [numbers[0] - 1, numbers[1], *(number - 1 for number in numbers[2:])]
            return name.format(*numbers) + key[found.end() :]
    return key
