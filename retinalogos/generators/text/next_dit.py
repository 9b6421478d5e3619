"""Next-DiT (Lumina-Next, arXiv 2406.18583): the paper's velocity network, its weights interchangeable with diffusers'.

Parameters carry the names and shapes of ``diffusers.LuminaNextDiT2DModel`` and give the same numbers. What differs is
how they are computed: real-valued rotary embedding from a table that is computed once, grouped-query attention without
copies of keys and values, no mask where every token is real, norms in one kernel, and the attention that is fastest on
the device at hand.
"""

import json
import math
from collections import OrderedDict
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

from retinalogos.errors import UsageError

# diffusers' class: named in config.json, so that whoever loads by class name finds the one everybody has.
PUBLISHED_CLASS = "LuminaNextDiT2DModel"
# Base of the rotary frequencies and width of the sinusoidal time embedding: Lumina-Next.
_ROTARY_BASE, _TIME_CHANNELS, _LONGEST_PERIOD = 10000.0, 256, 10000.0
# The conditioning vector is never wider: Lumina-Next.
_CONDITIONING = 1024


class Attention(nn.Module):
    """Projections and norms of one attention; ``output`` only where the block's shared output projection lives.

    Args:
        dim: width of the tokens that ask.
        context: width of the tokens that answer.
        heads: query heads.
        kv_heads: key and value heads, a divisor of ``heads``.
        qk_norm: layer norm of queries and keys over all their heads.
        output: hold the output projection.
    """

    def __init__(self, dim: int, context: int, heads: int, kv_heads: int, qk_norm: bool, output: bool):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, dim // heads
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_k = nn.Linear(context, kv_heads * self.head_dim, bias=False)
        self.to_v = nn.Linear(context, kv_heads * self.head_dim, bias=False)
        self.norm_q = nn.LayerNorm(dim, eps=1e-5) if qk_norm else None
        self.norm_k = nn.LayerNorm(kv_heads * self.head_dim, eps=1e-5) if qk_norm else None
        if output:
            self.to_out = nn.ModuleList([nn.Linear(dim, dim, bias=False)])

    def forward(
        self,
        x_bnd: Tensor,
        context_bmd: Tensor,
        mask_bm: Tensor | None,
        rotary: tuple[Tensor, Tensor],
        rotate_keys: bool,
        scale: float,
    ) -> Tensor:
        """Attended values, B×N×heads×head_dim.

        Args:
            x_bnd: tokens that ask.
            context_bmd: tokens that answer.
            mask_bm: bool, False where there is no token; ``None`` where all are.
            rotary: cosines and sines, each N×head_dim/2.
            rotate_keys: keys lie on the same grid as queries.
            scale: of the scores.
        """
        b, n, _ = x_bnd.shape
        q, k, v = self.to_q(x_bnd), self.to_k(context_bmd), self.to_v(context_bmd)
        if self.norm_q is not None and self.norm_k is not None:
            q, k = self.norm_q(q), self.norm_k(k)
        q = rotated(q.view(b, n, self.heads, self.head_dim), rotary)
        k = k.view(b, -1, self.kv_heads, self.head_dim)
        if rotate_keys:
            k = rotated(k, rotary)
        v = v.view(b, -1, self.kv_heads, self.head_dim)
        # The query heads of a group ask the same keys: they are rows of one attention, and nothing is copied.
        group = self.heads // self.kv_heads
        q = q.unflatten(2, (self.kv_heads, group)).permute(0, 2, 3, 1, 4).flatten(2, 3)
        attended = attention(q, k.transpose(1, 2), v.transpose(1, 2), mask_bm, scale)
        return attended.unflatten(2, (group, n)).permute(0, 3, 1, 2, 4).flatten(2, 3)


def attention(q_bhnd: Tensor, k_bhmd: Tensor, v_bhmd: Tensor, mask_bm: Tensor | None, scale: float) -> Tensor:
    """Scaled dot-product attention by the fastest way of the device.

    On a CPU in bfloat16 the plain matrix products are several times faster than PyTorch's fused kernel at the lengths
    of latents where it multiplies them natively (``benchmarks/attention.py``); elsewhere the fused kernel is.
    """
    mask = None if mask_bm is None else mask_bm[:, None, None, :]
    if q_bhnd.device.type == "cpu" and q_bhnd.dtype == torch.bfloat16:
        scores = (q_bhnd * scale) @ k_bhmd.transpose(-1, -2)
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf)
        # The kernel adds up in float32 by itself; a wider copy of all scores would take as long again.
        return scores.softmax(-1) @ v_bhmd
    return F.scaled_dot_product_attention(q_bhnd, k_bhmd, v_bhmd, attn_mask=mask, scale=scale)


def rotated(x_bnhd: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Turns each pair of neighbouring channels by its angle.

    A compiler fuses the real arithmetic and has none for complex numbers; without one a complex product is the only
    kernel that reads neighbours together, and takes a tenth of the time.
    """
    cosine, sine = (part[None, :, None, :] for part in rotary)
    pairs = x_bnhd.unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling():
        cosine, sine = cosine.to(x_bnhd.dtype), sine.to(x_bnhd.dtype)
        even, odd = pairs.unbind(-1)
        return torch.stack([even * cosine - odd * sine, even * sine + odd * cosine], -1).flatten(-2)
    turned = torch.view_as_complex(pairs.float()) * torch.complex(cosine, sine)
    return torch.view_as_real(turned).flatten(-2).to(x_bnhd.dtype)


@lru_cache(maxsize=32)
# A table that was first asked for by a sampler must serve training too.
@torch.inference_mode(False)
def rotary_table(
    height: int, width: int, head_dim: int, linear_factor: float, ntk_factor: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of a grid of tokens, each (height·width)×head_dim/2 float32: row and column in turn.

    Args:
        height: tokens down.
        width: tokens across.
        head_dim: a multiple of 4.
        linear_factor: positions are divided by it (position interpolation).
        ntk_factor: the base is multiplied by it, which stretches low frequencies and keeps high ones.
        device: of the table.
    """
    quarter = head_dim // 4
    frequency = (_ROTARY_BASE * ntk_factor) ** -(torch.arange(quarter, device=device).float() / quarter) / linear_factor
    down = torch.outer(torch.arange(height, device=device).float(), frequency)
    across = torch.outer(torch.arange(width, device=device).float(), frequency)
    grid = (height, width, quarter)
    angle = torch.stack([down[:, None].expand(grid), across[None].expand(grid)], -1).flatten(2).flatten(0, 1)
    return angle.cos(), angle.sin()


class RMSNorm(nn.RMSNorm):
    """RMS norm whose gain takes the input's precision: under autocast PyTorch's fused kernel wants them alike."""

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, normalised over the last axis."""
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class AdaptiveNorm(nn.Module):
    """RMS norm before attention, and the conditioning's scales and gates of a block."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.linear = nn.Linear(min(dim, _CONDITIONING), 4 * dim)
        self.norm = RMSNorm(dim, eps=eps)


class FeedForward(nn.Module):
    """SwiGLU (Shazeer, arXiv 2002.05202)."""

    def __init__(self, dim: int, inner: int):
        super().__init__()
        self.linear_1 = nn.Linear(dim, inner, bias=False)
        self.linear_2 = nn.Linear(inner, dim, bias=False)
        self.linear_3 = nn.Linear(dim, inner, bias=False)

    def forward(self, x_bnd: Tensor) -> Tensor:
        """B×N×D to B×N×D."""
        out: Tensor = self.linear_2(F.silu(self.linear_1(x_bnd)) * self.linear_3(x_bnd))
        return out


class Block(nn.Module):
    """Self- and cross-attention with one output projection, then the feed-forward; sandwich norms, gated by tanh."""

    def __init__(self, dim: int, heads: int, kv_heads: int, inner: int, eps: float, qk_norm: bool, text_dim: int):
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(heads))
        self.attn1 = Attention(dim, dim, heads, kv_heads, qk_norm, output=False)
        self.attn2 = Attention(dim, text_dim, heads, kv_heads, qk_norm, output=True)
        self.feed_forward = FeedForward(dim, inner)
        self.norm1 = AdaptiveNorm(dim, eps)
        self.ffn_norm1 = RMSNorm(dim, eps=eps)
        self.norm2 = RMSNorm(dim, eps=eps)
        self.ffn_norm2 = RMSNorm(dim, eps=eps)
        self.norm1_context = RMSNorm(text_dim, eps=eps)

    def forward(
        self,
        x_bnd: Tensor,
        conditioning_bd: Tensor,
        text_bmd: Tensor,
        mask_bm: Tensor | None,
        rotary: tuple[Tensor, Tensor],
        scale: float,
    ) -> Tensor:
        """B×N×D to B×N×D; ``conditioning_bd`` has been through its SiLU."""
        parts = self.norm1.linear(conditioning_bd).unsqueeze(1).chunk(4, -1)
        scale_attention, gate_attention, scale_mlp, gate_mlp = parts
        asked = self.norm1.norm(x_bnd) * (1 + scale_attention)
        own = self.attn1(asked, asked, None, rotary, rotate_keys=True, scale=scale)
        text = self.norm1_context(text_bmd)
        text_scale = self.attn2.head_dim**-0.5
        told = self.attn2(asked, text, mask_bm, rotary, rotate_keys=False, scale=text_scale)
        mixed = torch.addcmul(own, told, self.gate.tanh()[:, None].to(told.dtype)).flatten(2)
        x_bnd = torch.addcmul(x_bnd, gate_attention.tanh(), self.norm2(self.attn2.to_out[0](mixed)))
        refined = self.feed_forward(self.ffn_norm1(x_bnd) * (1 + scale_mlp))
        return torch.addcmul(x_bnd, gate_mlp.tanh(), self.ffn_norm2(refined))


class TimeCaptionEmbedding(nn.Module):
    """The conditioning vector: time, and the mean of the caption's tokens."""

    def __init__(self, dim: int, text_dim: int):
        super().__init__()
        self.timestep_embedder = nn.Sequential(
            OrderedDict(linear_1=nn.Linear(_TIME_CHANNELS, dim), act=nn.SiLU(), linear_2=nn.Linear(dim, dim))
        )
        self.caption_embedder = nn.Sequential(nn.LayerNorm(text_dim), nn.Linear(text_dim, dim))

    def forward(self, t_b: Tensor, text_bmd: Tensor, mask_bm: Tensor) -> Tensor:
        """Conditioning B×D."""
        half = _TIME_CHANNELS // 2
        frequency = torch.exp(-math.log(_LONGEST_PERIOD) / half * torch.arange(half, device=t_b.device).float())
        angle = t_b.float()[:, None] * frequency
        time = torch.cat([angle.cos(), angle.sin()], -1).to(text_bmd.dtype)
        weight = mask_bm.to(text_bmd.dtype).unsqueeze(-1)
        pooled = (text_bmd * weight).sum(1) / weight.sum(1)
        out: Tensor = self.timestep_embedder(time) + self.caption_embedder(pooled)
        return out


class OutputNorm(nn.Module):
    """Layer norm scaled by the conditioning, and the projection to patches."""

    def __init__(self, dim: int, out: int):
        super().__init__()
        self.linear_1 = nn.Linear(min(dim, _CONDITIONING), dim)
        self.linear_2 = nn.Linear(dim, out)

    def forward(self, x_bnd: Tensor, conditioning_bd: Tensor) -> Tensor:
        """B×N×D to B×N×out; ``conditioning_bd`` has been through its SiLU."""
        scale = self.linear_1(conditioning_bd).unsqueeze(1)
        out: Tensor = self.linear_2(F.layer_norm(x_bnd, x_bnd.shape[-1:], eps=1e-6) * (1 + scale))
        return out


class ConvolutionalStem(nn.Module):
    """Two convolutions over the latents, added to them before they are cut into patches; at first it adds nothing.

    After Xiao et al. (Early Convolutions Help Transformers See Better, arXiv 2106.14881), who put them in the place of
    the projection of patches.
    """

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.conv_in = nn.Conv2d(channels, width, 3, padding=1)
        self.conv_out = nn.Conv2d(width, channels, 3, padding=1)
        for parameter in self.conv_out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x_bchw: Tensor) -> Tensor:
        """B×C×H×W to B×C×H×W."""
        added: Tensor = self.conv_out(F.silu(self.conv_in(x_bchw)))
        return x_bchw + added


class NextDiT(ModelMixin, ConfigMixin):
    """The network. Arguments, defaults, parameter names and results are those of ``LuminaNextDiT2DModel``.

    Args:
        sample_size: width of the latents trained on; recorded only: any multiples of the patch run.
        patch_size: latents per token along each axis.
        in_channels: channels of the latents.
        hidden_size: width of a token.
        num_layers: blocks.
        num_attention_heads: query heads; the width of a head is a multiple of 4.
        num_kv_heads: key and value heads; ``None`` for as many as query heads.
        multiple_of: the feed-forward's width is rounded up to a multiple of it.
        ffn_dim_multiplier: of the feed-forward's width, 8/3 of ``hidden_size``.
        norm_eps: of the RMS norms.
        learn_sigma: predict twice the channels, as Lumina's weights do; the second half is no part of the velocity.
        qk_norm: layer norm of queries and keys.
        cross_attention_dim: width of the text tokens.
        scaling_factor: recorded only.
        stem_channels: width of a :class:`ConvolutionalStem`; 0, as published: none. A network that has one is no
            LuminaNextDiT2DModel, and its folder does not say so.

    Raises:
        UsageError: sizes that do not divide.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 128,
        patch_size: int = 2,
        in_channels: int = 4,
        hidden_size: int = 2304,
        num_layers: int = 32,
        num_attention_heads: int = 32,
        num_kv_heads: int | None = None,
        multiple_of: int = 256,
        ffn_dim_multiplier: float | None = None,
        norm_eps: float = 1e-5,
        learn_sigma: bool = True,
        qk_norm: bool = True,
        cross_attention_dim: int = 2048,
        scaling_factor: float = 1.0,
        stem_channels: int = 0,
    ):
        super().__init__()
        kv_heads = num_kv_heads or num_attention_heads
        if hidden_size % (4 * num_attention_heads):
            raise UsageError(
                f"hidden_size={hidden_size} is no multiple of 4 × num_attention_heads={num_attention_heads}: "
                "the rotary embedding turns pairs of channels along two axes"
            )
        if num_attention_heads % kv_heads:
            raise UsageError(f"num_attention_heads={num_attention_heads} is no multiple of num_kv_heads={kv_heads}")
        self.patch_size, self.in_channels = patch_size, in_channels
        self.out_channels = in_channels * (2 if learn_sigma else 1)
        self.head_dim = hidden_size // num_attention_heads
        inner = int(4 * 2 * hidden_size / 3)
        if ffn_dim_multiplier is not None:
            inner = int(ffn_dim_multiplier * inner)
        inner = multiple_of * math.ceil(inner / multiple_of)
        patch_values = patch_size * patch_size

        self.stem = ConvolutionalStem(in_channels, stem_channels) if stem_channels else nn.Identity()
        self.patch_embedder = nn.Sequential(OrderedDict(proj=nn.Linear(patch_values * in_channels, hidden_size)))
        # Of Lumina's packed batches; unused here, kept so that checkpoints load and save whole.
        self.pad_token = nn.Parameter(torch.zeros(hidden_size))
        self.time_caption_embed = TimeCaptionEmbedding(min(hidden_size, _CONDITIONING), cross_attention_dim)
        self.layers = nn.ModuleList(
            Block(hidden_size, num_attention_heads, kv_heads, inner, norm_eps, qk_norm, cross_attention_dim)
            for _ in range(num_layers)
        )
        self.norm_out = OutputNorm(hidden_size, patch_values * self.out_channels)

    def forward(
        self,
        latents_bchw: Tensor,
        t_b: Tensor,
        text_bnd: Tensor,
        text_mask_bn: Tensor,
        *,
        linear_factor: float = 1.0,
        ntk_factor: float = 1.0,
        base_tokens: int | None = None,
    ) -> Tensor:
        """Predicted velocity (data − noise), B×C×H×W, or B×2C×H×W with ``learn_sigma``.

        Args:
            latents_bchw: latents on the path; H and W multiples of the patch, of any ratio.
            t_b: time in [0, 1], 1 is data.
            text_bnd: token features.
            text_mask_bn: 1 where there is a token.
            linear_factor: see :func:`rotary_table`.
            ntk_factor: see :func:`rotary_table`.
            base_tokens: tokens of a picture at the training resolution: above it, scores are scaled by
                √log_base(tokens), so that attention stays as peaked (proportional attention). ``None``: off.

        Raises:
            UsageError: H or W is no multiple of the patch.
        """
        b, c, height, width = latents_bchw.shape
        p = self.patch_size
        if height % p or width % p:
            raise UsageError(f"latents of {height}×{width} do not divide into patches of {p}×{p}")
        rows, columns = height // p, width // p
        patches = self.stem(latents_bchw).reshape(b, c, rows, p, columns, p).permute(0, 2, 4, 1, 3, 5)
        x = self.patch_embedder(patches.reshape(b, rows * columns, c * p * p))
        conditioning = F.silu(self.time_caption_embed(t_b, text_bnd, text_mask_bn))
        rotary = rotary_table(rows, columns, self.head_dim, linear_factor, ntk_factor, x.device)
        mask = text_mask_bn.bool()
        scale = self.head_dim**-0.5
        if base_tokens is not None:
            scale *= math.sqrt(math.log(rows * columns, base_tokens))
        for layer in self.layers:
            x = layer(x, conditioning, text_bnd, mask, rotary, scale)
        x = self.norm_out(x, conditioning).view(b, rows, columns, p, p, self.out_channels)
        return x.permute(0, 5, 1, 3, 2, 4).reshape(b, self.out_channels, height, width)

    def save_config(self, save_directory: str | Path, push_to_hub: bool = False, **options: Any) -> None:
        """Writes ``config.json``: without a stem that of diffusers' class, whose folder it then is."""
        super().save_config(save_directory, push_to_hub, **options)
        if self.config.stem_channels:
            return
        path = Path(save_directory) / self.config_name
        written = json.loads(path.read_text(encoding="utf-8"))
        del written["stem_channels"]
        path.write_text(json.dumps(written | {"_class_name": PUBLISHED_CLASS}, indent=2) + "\n", encoding="utf-8")
