"""Networks that draw lesion maps by grade: a conditional StyleGAN2 whose output is one class a pixel.

The generator is that of Karras et al., CVPR 2020 (styles scale the channels of a convolution, whose output is brought
back to unit variance; outputs of all scales are added up), with the grade's embedding added after each layer of the
mapping network, as RetinaGAN does. Its output are not probabilities but classes drawn by them, through which gradients
pass as if they were probabilities (straight-through Gumbel-softmax: Jang et al., ICLR 2017): beside real maps, which
have one class a pixel, probabilities give themselves away before anything is learnt, and of lesions that cover a
hundredth of the field none would ever be the likeliest class of a pixel. Neighbouring pixels are drawn alike, as far as
training lesions are large (:mod:`grain`). The discriminator is that of Karras et al., residual with minibatch
deviation, and judges the grade by projection (Miyato and Koyama, ICLR 2018).
"""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retinalogos.generators.lesion_map.configuration import LayoutConfig
from retinalogos.generators.lesion_map.grain import fit_grain, gumbel_noise, mean_area
from retinalogos.generators.lesion_map.maps import BG, CLASSES, GRADES, LESIONS, VB

# Maps whose differences the discriminator sees together, as StyleGAN2. In training they are of one grade: among those
# of several it would not see that a grade's are all alike.
GROUP = 4
_SLOPE = 0.2
# Keeps the variance through the rectifier of that slope: as StyleGAN2.
_GAIN = math.sqrt(2)
# Styles whose mean is a grade's centre: enough that it moves by less than a hundredth of their spread.
_CENTRE_STYLES = 10_000
# Of the grades' embeddings at the start. They are added after every layer: at the spread of z they would drown it, and
# the maps of a grade be all alike. RetinaGAN starts within ±0.05.
_GRADE_SPREAD = 0.2
# Maps that lesions are measured in: a few styles hold most of the rare lesions, so that matched by 128 maps, others
# had up to a third too few lesions, by 512 a seventh; and maps that are drawn at once, which bounds memory.
_MATCHED, _AT_ONCE = 512, 16
# How often their share is set right; and the factor by which it changes at most, where a grade has none of a lesion.
_ROUNDS, _LEAST_CHANGE = 6, 0.02
# Probability that a pixel has a class, at least: keeps the odds finite.
_LEAST_ODDS = 1e-6
# Share of the pixels below which a class counts as this frequent in the prior: nothing is ruled out.
_LEAST_SHARE = 1e-4


def activate(x: Tensor) -> Tensor:
    """Leaky rectifier that keeps the variance."""
    return F.leaky_relu(x, _SLOPE) * _GAIN


class EqualLinear(nn.Module):
    """A linear layer with weights of unit variance that are scaled when used (Karras et al., ICLR 2018)."""

    def __init__(self, inputs: int, outputs: int, bias: float = 0.0, rate: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))
        self.scale, self.rate = rate / math.sqrt(inputs), rate

    def forward(self, x: Tensor) -> Tensor:
        """b×inputs to b×outputs."""
        return F.linear(x, self.weight * self.scale, self.bias * self.rate)


class EqualConv(nn.Module):
    """A convolution of odd width with weights of unit variance that are scaled when used."""

    def __init__(self, inputs: int, outputs: int, width: int, bias: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, width, width))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.scale, self.padding = 1 / math.sqrt(inputs * width**2), width // 2

    def forward(self, x_bchw: Tensor) -> Tensor:
        """b×inputs×h×w to b×outputs×h×w."""
        return F.conv2d(x_bchw, self.weight * self.scale, self.bias, padding=self.padding)


class ModulatedConv(nn.Module):
    """A convolution whose input channels are scaled by a style, and whose output is brought back to unit variance.

    To scale activations before and after one common convolution is the same as to convolve each sample by kernels of
    its own, and far faster where grouped convolutions are slow.
    """

    def __init__(self, inputs: int, outputs: int, width: int, latent: int, demodulate: bool = True):
        super().__init__()
        self.conv = EqualConv(inputs, outputs, width, bias=False)
        self.style = EqualLinear(latent, inputs, bias=1.0)
        self.demodulate = demodulate

    def forward(self, x_bchw: Tensor, style_bd: Tensor) -> Tensor:
        """b×inputs×h×w and styles b×latent to b×outputs×h×w."""
        factor = self.style(style_bd)
        y = self.conv(x_bchw * factor[:, :, None, None])
        if not self.demodulate:
            return y
        energy = (self.conv.weight * self.conv.scale).square().sum((2, 3))
        return y * torch.rsqrt(factor.square() @ energy.t() + 1e-8)[:, :, None, None]


class _Layer(nn.Module):
    """Modulated convolution, noise, bias, activation."""

    def __init__(self, inputs: int, outputs: int, latent: int):
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, 3, latent)
        self.strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(outputs, 1, 1))

    def forward(self, x: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        return activate(self.conv(x, style) + self.strength * noise + self.bias)


class LayoutGenerator(nn.Module):
    """Grade, z and noise to the classes of a map."""

    def __init__(self, config: LayoutConfig):
        super().__init__()
        self.config = config
        # The mapping network learns at a hundredth of the rate, as StyleGAN.
        self.mapping = nn.ModuleList(
            EqualLinear(config.latent, config.latent, rate=0.01) for _ in range(config.mapping_layers)
        )
        self.grade = nn.Embedding(GRADES, config.latent)
        nn.init.normal_(self.grade.weight, std=_GRADE_SPREAD)
        first = config.widths[0]
        self.constant = nn.Parameter(torch.randn(1, first, 4, 4))
        pairs = list(zip((first, *config.widths), config.widths, strict=False))
        self.first = nn.ModuleList(_Layer(before, after, config.latent) for before, after in pairs)
        self.second = nn.ModuleList(_Layer(width, width, config.latent) for width in config.widths)
        self.outputs = nn.ModuleList(
            ModulatedConv(width, len(CLASSES), 1, config.latent, demodulate=False) for width in config.widths
        )
        self.bias = nn.Parameter(torch.zeros(len(CLASSES), 1, 1))
        # Lesions lie on the retina, and their logits are relative to its. Else they die out as the network grows sure
        # of the retina, and what is left of them lies where it is not sure: around the disc.
        self.on_retina = nn.Buffer(torch.zeros(len(CLASSES), 1, 1))
        self.on_retina[list(LESIONS)] = 1
        # Logarithm of how often each class occurs: see `start_from`.
        self.prior = nn.Buffer(torch.zeros(GRADES, len(CLASSES), config.size, config.size))
        # Smoothing of the noise by which each class is drawn, pixels: see `start_grain`.
        self.grain = nn.Buffer(torch.zeros(len(CLASSES)))
        # Mean style of each grade, which truncation goes towards: see `find_centres`.
        self.centres = nn.Buffer(torch.zeros(GRADES, config.latent))

    @property
    def scales(self) -> int:
        """Resolutions, each with a style of its own."""
        return len(self.config.widths)

    def styles(self, z_bd: Tensor, grades_b: Tensor) -> Tensor:
        """z b×latent and grades b (0-4) to styles b×latent."""
        style = F.normalize(z_bd, dim=1) * math.sqrt(z_bd.shape[1])
        of_grade = self.grade(grades_b)
        for layer in self.mapping:
            style = activate(layer(style)) + of_grade
        return style

    def noise(self, generators: list[torch.Generator]) -> tuple[Tensor, list[Tensor]]:
        """z b×latent and, of each map from its own generator on the CPU, the noise that :meth:`forward` takes.

        That is normal noise b×1×s×s twice for each scale s and, last, Gumbel noise b×7×size×size.
        """
        where, side = self.constant.device, self.config.size
        z = torch.stack([torch.randn(self.config.latent, generator=g) for g in generators])
        sides = [4 * 2**i for i in range(self.scales) for _ in range(2)]
        fields = [torch.stack([torch.randn(1, s, s, generator=g) for g in generators]).to(where) for s in sides]
        normal = torch.stack([torch.randn(len(CLASSES), side, side, generator=g) for g in generators])
        return z.to(where), [*fields, gumbel_noise(normal.to(where), self.grain)]

    def forward(self, styles_bsd: Tensor, noise: list[Tensor], grades_b: Tensor) -> Tensor:
        """Styles b×scales×latent, noise (see :meth:`noise`) and grades b to one-hot classes b×7×size×size."""
        soft = F.softmax(self._logits(styles_bsd, noise) + self.prior[grades_b] + noise[-1], 1)
        drawn = F.one_hot(soft.argmax(1), len(CLASSES)).permute(0, 3, 1, 2).to(soft)
        return drawn + soft - soft.detach()

    def _logits(self, styles_bsd: Tensor, noise: list[Tensor]) -> Tensor:
        """Of the classes, b×7×size×size, before the prior of the grade is added."""
        x = self.constant.expand(len(styles_bsd), -1, -1, -1)
        total: Tensor | None = None
        for scale, (first, second, output) in enumerate(zip(self.first, self.second, self.outputs, strict=True)):
            style = styles_bsd[:, scale]
            if scale:
                x = F.interpolate(x, scale_factor=2, mode="bilinear")
            x = second(first(x, style, noise[2 * scale]), style, noise[2 * scale + 1])
            y = output(x, style)
            total = y if total is None else F.interpolate(total, scale_factor=2, mode="bilinear") + y
        assert total is not None
        total = total + self.bias
        return total + self.on_retina * total[:, VB : VB + 1]

    @torch.no_grad()
    def start_from(self, maps_nchw: Tensor, grades_n: Tensor) -> None:
        """Sets the prior: how often each class occurs at each place, blurred, times how often it does in each grade.

        Args:
            maps_nchw: training maps, n×7×size×size.
            grades_n: their grades.
        """
        at_place = _blurred(maps_nchw.mean(0)) + _LEAST_SHARE
        overall = maps_nchw.mean((0, 2, 3)) + _LEAST_SHARE
        for grade in range(GRADES):
            members = maps_nchw[grades_n == grade]
            of_grade = members.mean((0, 2, 3)) + _LEAST_SHARE if len(members) else overall
            self.prior[grade] = at_place.log() + (of_grade / overall).log()[:, None, None]
        # What the network adds to it begins at nothing.
        for output in self.outputs:
            output.conv.weight.zero_()  # type: ignore[operator, union-attr]

    @torch.no_grad()
    def start_grain(self, classes_nhw: np.ndarray, seed: int) -> None:
        """Sets how far neighbours are drawn alike, before anything is learnt of where lesions lie.

        Args:
            classes_nhw: training maps, n×size×size.
            seed: of the draws by which it is found.
        """
        rng = np.random.default_rng(seed)

        def anywhere(lesions: tuple[int, ...]) -> Tensor:
            shares = np.isin(classes_nhw, lesions).mean((1, 2))
            drawn = rng.choice(shares[shares > 0], _MATCHED) if shares.any() else np.zeros(_MATCHED)
            odds = torch.from_numpy(drawn).float().clamp(_LEAST_ODDS, 1 - _LEAST_ODDS).logit()
            return odds[:, None, None].expand(-1, *classes_nhw.shape[1:])

        self._set_grain(classes_nhw, anywhere, seed)

    def _set_grain(self, classes_nhw: np.ndarray, odds_of: Callable[[tuple[int, ...]], Tensor], seed: int) -> None:
        """By the odds of lesions together, then of each: what is no lesion is smoothed as all lesions together are."""
        together = fit_grain(mean_area(np.isin(classes_nhw, LESIONS)), odds_of(LESIONS), seed)
        self.grain.fill_(together)
        for c in LESIONS:
            self.grain[c] = fit_grain(mean_area(classes_nhw == c), odds_of((c,)), seed, together)

    @torch.no_grad()
    def match(self, classes_nhw: np.ndarray, grades_n: Tensor, shares_gc: Tensor, seed: int) -> None:
        """Sets right how much of each lesion a grade has, where (the prior), and how large they are (the grain).

        An adversarial training of some minutes learns none of it well.

        Args:
            classes_nhw: training maps, n×size×size.
            grades_n: their grades.
            shares_gc: share of all pixels that each class has in each grade, 5×7; nan where it is not known.
            seed: of the styles and draws at which both are measured.
        """

        def logits(grades_b: Tensor) -> Tensor:
            draws, parts = torch.Generator().manual_seed(seed), []
            for some in grades_b.split(_AT_ONCE):
                z, noise = self.noise([draws] * len(some))
                parts.append(self._logits(self.styles(z, some)[:, None].expand(-1, self.scales, -1), noise))
            return torch.cat(parts)

        lesions = list(LESIONS)
        at_place = torch.from_numpy(np.stack([(classes_nhw == c).mean(0) for c in lesions])).to(self.prior)
        at_place = _blurred(at_place / at_place.mean((1, 2), keepdim=True).clamp_min(_LEAST_ODDS))
        for grade in range(GRADES):
            wanted = shares_gc[grade, lesions].to(self.prior)[:, None, None] * at_place
            of_grade = logits(torch.full((_MATCHED,), grade, device=self.prior.device))
            for _ in range(_ROUNDS):
                # How often a pixel has a class is what its probability says, whatever the grain.
                found = _blurred(F.softmax(of_grade + self.prior[grade], 1)[:, lesions].mean(0))
                change = (wanted / found).clamp(_LEAST_CHANGE, 1 / _LEAST_CHANGE)
                self.prior[grade, lesions] += change.log().nan_to_num(0.0)
        grades_b = grades_n[np.random.default_rng(seed).integers(len(grades_n), size=_MATCHED)].to(self.prior.device)
        shares = F.softmax(logits(grades_b) + self.prior[grades_b], 1)

        def drawn(lesions: tuple[int, ...]) -> Tensor:
            return shares[:, list(lesions)].sum(1).clamp(_LEAST_ODDS, 1 - _LEAST_ODDS).logit()

        self._set_grain(classes_nhw, drawn, seed)

    @torch.no_grad()
    def find_centres(self, seed: int) -> None:
        """Sets the mean style of each grade, from a sample of ``seed``."""
        z = torch.randn(_CENTRE_STYLES, self.config.latent, generator=torch.Generator().manual_seed(seed))
        for grade in range(GRADES):
            grades = torch.full((_CENTRE_STYLES,), grade, device=self.centres.device)
            self.centres[grade] = self.styles(z.to(self.centres.device), grades).mean(0)

    @torch.inference_mode()
    def draw(self, grades: list[int], seeds: list[int], truncation: float) -> Tensor:
        """One-hot classes b×7×size×size; a map depends on its grade and seed alone.

        Args:
            grades: 0-4, one for each map.
            seeds: one for each map.
            truncation: share of the way from the grade's mean style to the drawn one; 1 for none.
        """
        z, noise = self.noise([torch.Generator().manual_seed(seed) for seed in seeds])
        grades_b = torch.tensor(grades, device=z.device)
        styles = torch.lerp(self.centres[grades_b], self.styles(z, grades_b), truncation)
        return self(styles[:, None].expand(-1, self.scales, -1), noise, grades_b)


def _blurred(maps_chw: Tensor) -> Tensor:
    """How often something is at each place, over an eighth of the side, which keeps single maps out of it."""
    width = max(1, maps_chw.shape[-1] // 16)
    return F.avg_pool2d(F.pad(maps_chw[None], (width,) * 4, mode="replicate"), 2 * width + 1, 1)[0]


class _Down(nn.Module):
    """Residual block that halves the side."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first, self.second = EqualConv(inputs, inputs, 3), EqualConv(inputs, outputs, 3)
        self.skip = EqualConv(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = activate(self.second(F.avg_pool2d(activate(self.first(x)), 2)))
        return (y + self.skip(F.avg_pool2d(x, 2))) / _GAIN


class LayoutDiscriminator(nn.Module):
    """Map and grade to how real the pair looks."""

    def __init__(self, config: LayoutConfig):
        super().__init__()
        widths = config.discriminator_widths[::-1]
        self.read = EqualConv(len(CLASSES), widths[0], 1)
        self.blocks = nn.ModuleList(_Down(a, b) for a, b in pairwise(widths))
        self.last = EqualConv(widths[-1] + 1, widths[-1], 3)
        self.features = EqualLinear(16 * widths[-1], widths[-1])
        self.real = EqualLinear(widths[-1], 1)
        self.grade = nn.Embedding(GRADES, widths[-1])

    def forward(self, maps_bchw: Tensor, grades_b: Tensor) -> Tensor:
        """Maps b×7×size×size and grades b to logits b: above zero for real. ``GROUP`` neighbours are seen together."""
        x = activate(self.read(maps_bchw))
        for block in self.blocks:
            x = block(x)
        # How much the maps of a group differ: one number each, as a further channel.
        groups = x.unflatten(0, (-1, math.gcd(len(x), GROUP)))
        spread = (groups.var(1, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3)).repeat_interleave(groups.shape[1])
        x = activate(self.last(torch.cat([x, spread[:, None, None, None].expand(-1, 1, *x.shape[2:])], 1)))
        features = activate(self.features(x.flatten(1)))
        of_grade = (features * self.grade(grades_b)).sum(1) / math.sqrt(features.shape[1])
        return self.real(features)[:, 0] + of_grade


def augment(maps_bchw: Tensor, strength: Tensor, generator: torch.Generator) -> Tensor:
    """Adaptive discriminator augmentation (Karras et al., NeurIPS 2020) for maps: moves, turns, scales, mirrors.

    Each happens with probability ``strength`` and is drawn for every map; what comes from outside is background.

    Args:
        maps_bchw: probabilities, b×7×size×size.
        strength: probability 0-1, a scalar.
        generator: of the draws, on the CPU.
    """
    n = len(maps_bchw)
    normal, uniform = torch.randn(n, 5, generator=generator), torch.rand(n, 6, generator=generator)
    on = (uniform[:, :5] < strength.cpu()).float()
    # Deviations of that paper: 1/8 of the side, 2^0.2 of the scale; turns by any angle.
    angle = on[:, 0] * (uniform[:, 5] * 2 - 1) * math.pi
    factor = torch.exp2(0.2 * on[:, 1] * normal[:, 0])
    mirror = 1 - 2 * on[:, 2] * (normal[:, 1] > 0).float()
    shift = 0.25 * on[:, 3:5] * normal[:, 2:4]
    cos, sin = torch.cos(angle) * factor, torch.sin(angle) * factor
    rows = [torch.stack([cos * mirror, -sin, shift[:, 0]], 1), torch.stack([sin * mirror, cos, shift[:, 1]], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(maps_bchw.shape), align_corners=False)
    moved = F.grid_sample(maps_bchw, grid.to(maps_bchw), align_corners=False)
    background = moved[:, BG : BG + 1] + 1 - moved.sum(1, keepdim=True)
    return torch.cat([moved[:, :BG], background, moved[:, BG + 1 :]], 1)
