"""What the layout networks are trained to: draw maps that no discriminator tells from the cohort's, grade by grade."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from retinalogos.contact_sheet import make_sheet
from retinalogos.errors import DataError
from retinalogos.generators.lesion_map import maps
from retinalogos.generators.lesion_map.configuration import LayoutConfig, LayoutLossConfig
from retinalogos.generators.lesion_map.examples import NO_GRADE, Examples
from retinalogos.generators.lesion_map.layout import GROUP, LayoutDiscriminator, LayoutGenerator, augment
from retinalogos.provenance import write_png
from retinalogos.training import distributed
from retinalogos.training.device import device

# Maps of each grade in a sample's picture.
_SHOWN = 4


class LayoutObjective:
    """Non-saturating adversarial loss (Goodfellow et al., NeurIPS 2014) with R1, style mixing and augmentation.

    A data set that does not mark a class shows it as retina. The maps that are drawn beside one of its eyes lose that
    class in the same way before they are judged (Bora et al., ICLR 2018), so that nobody learns that it is absent.

    Args:
        examples: training eyes; those without a grade, or with a lesion of several candidates, are left out.
        config: of the networks.
        loss: see :class:`LayoutLossConfig`.
        batch_size: maps in a step.
        seed: of weights and of all draws.

    Raises:
        DataError: no eye has both a grade and a map.
    """

    def __init__(self, examples: Examples, config: LayoutConfig, loss: LayoutLossConfig, batch_size: int, seed: int):
        shown, marked = as_shown(examples.candidates)
        usable = (shown != maps.UNKNOWN).all((1, 2)) & (examples.grades != NO_GRADE)
        if not usable.any():
            raise DataError("no training eye has both an ICDR grade and a lesion map; layouts are drawn by grade")
        self.left_out = int((~usable).sum())
        self._shown, self._marked = torch.from_numpy(shown[usable]), torch.from_numpy(marked[usable]).float()
        self._grades = torch.from_numpy(examples.grades[usable]).long()
        self._loss, self._batch_size, self._seed = loss, batch_size, seed
        members = [np.flatnonzero(self._grades == grade) for grade in range(maps.GRADES)]
        self._members = [member for member in members if len(member)]
        share = np.array([1 if loss.balanced else len(member) for member in self._members])
        self._share = share / share.sum()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.generator = LayoutGenerator(config)
            self.discriminator = LayoutDiscriminator(config)
        self.generator.start_grain(shown[usable], seed)
        if config.prior:
            self.generator.start_from(torch.from_numpy(maps.one_hot(shown[usable])), self._grades)
        self._shares = class_shares(self._shown, self._marked, self._grades)
        self._strength = torch.zeros(())
        self._signs: dict[int, Tensor] = {}

    def _rows(self, step: int | None, rows: slice) -> Tensor:
        """Of a step's batch, in which each ``GROUP`` neighbours are of one grade."""
        rng = np.random.default_rng([self._seed, 0 if step is None else step + 1])
        grades = rng.choice(len(self._members), -(-self._batch_size // GROUP), p=self._share)
        chosen = [rng.choice(self._members[g], GROUP, replace=len(self._members[g]) < GROUP) for g in grades]
        return torch.from_numpy(np.concatenate(chosen)[: self._batch_size])[rows]

    def _draws(self, step: int | None, rows: slice, turn: int) -> torch.Generator:
        """Of these rows of a step's batch; ``turn`` tells the two networks' draws apart."""
        words = [self._seed, 0 if step is None else step + 1, rows.start or 0, turn]
        return torch.Generator().manual_seed(int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1))

    def _real(self, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        where = device()
        shown = F.one_hot(self._shown[chosen].to(where).long(), len(maps.CLASSES)).permute(0, 3, 1, 2).float()
        return shown, self._marked[chosen].to(where), self._grades[chosen].to(where)

    def _drawn(self, marked: Tensor, grades: Tensor, draws: torch.Generator, generator: LayoutGenerator) -> Tensor:
        n = len(grades)
        z, noise = generator.noise([draws] * n)
        styles = generator.styles(z, grades)[:, None].expand(-1, generator.scales, -1)
        if self._loss.mixing and generator.scales > 1:
            other = generator.styles(torch.randn(z.shape, generator=draws).to(z), grades)[:, None]
            mixed = torch.rand(n, 1, generator=draws) < self._loss.mixing
            since = torch.randint(1, generator.scales, (n, 1), generator=draws)
            from_other = mixed & (torch.arange(generator.scales) >= since)
            styles = torch.where(from_other[:, :, None].to(z.device), other, styles)
        return as_marked(generator(styles, noise, grades), marked)

    def discriminator_loss(self, discriminator: nn.Module, step: int | None, rows: slice) -> Tensor:
        """Logistic loss on both kinds of maps and, every few steps, the penalty γ/2 |∇D(real)|²."""
        real, marked, grades = self._real(self._rows(step, rows))
        draws = self._draws(step, rows, 0)
        with torch.no_grad():
            drawn = self._drawn(marked, grades, draws, self.generator)
        penalised = bool(self._loss.penalty) and (step or 0) % self._loss.penalty_every == 0
        real.requires_grad_(penalised)
        on_real = discriminator(augment(real, self._strength, draws), grades)
        on_drawn = discriminator(augment(drawn, self._strength, draws), grades)
        self._signs[rows.start or 0] = on_real.detach().sign().mean()
        loss = F.softplus(-on_real).mean() + F.softplus(on_drawn).mean()
        if penalised:
            (slope,) = torch.autograd.grad(on_real.sum(), real, create_graph=True)
            energy = slope.square().sum((1, 2, 3)).mean()
            loss = loss + 0.5 * self._loss.penalty * self._loss.penalty_every * energy
        return loss

    def generator_loss(self, generator: nn.Module, step: int | None, rows: slice) -> Tensor:
        """Logistic loss of maps that are to be taken for real."""
        _, marked, grades = self._real(self._rows(step, rows))
        draws = self._draws(step, rows, 1)
        drawn = self._drawn(marked, grades, draws, self.generator)
        return F.softplus(-self.discriminator(augment(drawn, self._strength, draws), grades)).mean()

    def after(self, step: int) -> dict[str, float]:
        """Moves the strength of augmentation a little towards the target."""
        sign = torch.stack([value for _, value in sorted(self._signs.items())]).mean()
        distributed.average([sign])
        if self._loss.augment_target:
            change = torch.sign(sign.cpu() - self._loss.augment_target) * self._batch_size / self._loss.augment_images
            self._strength = (self._strength + change).clamp(0, 1)
        return {"sign_on_real": float(sign), "augmentation": float(self._strength)}

    def state(self) -> dict[str, Tensor]:
        """The strength of augmentation."""
        return {"strength": self._strength}

    def load(self, state: dict[str, Tensor]) -> None:
        """Puts it back."""
        self._strength = state["strength"]

    def finish(self) -> None:
        """After the training: lesions as frequent and as large as in the eyes, and the mean style of each grade."""
        self.generator.match(self._shown.numpy(), self._grades, self._shares, self._seed)
        self.generator.find_centres(self._seed)

    def sample(self, path: Path) -> None:
        """A row of maps for each grade."""
        self.generator.find_centres(self._seed)
        grades = [grade for grade in range(maps.GRADES) for _ in range(_SHOWN)]
        drawn = self.generator.draw(grades, list(range(len(grades))), 1.0).argmax(1).cpu().numpy().astype(np.uint8)
        sheet = make_sheet(list(maps.to_rgb(drawn)), [f"grade {grade}" for grade in grades], _SHOWN)
        write_png(path, sheet, {"seed": 0})


def as_shown(candidates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maps as their data set shows them, with unmarked classes as retina, and which classes it marks.

    Args:
        candidates: uint8, n × h × w.

    Returns:
        uint8 classes n × h × w, :data:`maps.UNKNOWN` where a pixel may be one of several but not retina; bool n × 7.
    """
    retina = (candidates & maps.bits((maps.VB,))) > 0
    anywhere = np.bitwise_or.reduce(np.where(retina, candidates, 0), axis=(1, 2))
    bits = 1 << np.arange(len(maps.CLASSES))
    marked = (anywhere[:, None] & bits) == 0
    marked[:, maps.VB] = True
    # A disc on which lesions are not marked is shown as disc.
    disc = (candidates & maps.bits((maps.OD,)) > 0) & ~retina
    shown = np.where(retina, np.uint8(maps.VB), maps.classes_of(candidates))
    return np.where(disc, np.uint8(maps.OD), shown), marked


def class_shares(classes_nhw: Tensor, marked_nc: Tensor, grades_n: Tensor) -> Tensor:
    """Share of the pixels that each class has in each grade, 5×7, of eyes whose data set marks it; nan where none do.

    Args:
        classes_nhw: uint8, n×h×w.
        marked_nc: n×7, 1 where marked.
        grades_n: n, 0-4.
    """
    shares = torch.stack([(classes_nhw == c).float().mean((1, 2)) for c in range(len(maps.CLASSES))], 1)
    of_grade = F.one_hot(grades_n, maps.GRADES).t().float()
    return (of_grade @ (shares * marked_nc)) / (of_grade @ marked_nc)


def as_marked(drawn_bchw: Tensor, marked_bc: Tensor) -> Tensor:
    """Probabilities b×7×h×w with the classes that are not marked (0 in b×7) added to the retina."""
    shown = drawn_bchw * marked_bc[:, :, None, None]
    retina = shown[:, maps.VB :] + (drawn_bchw - shown).sum(1, keepdim=True)
    return torch.cat([shown[:, : maps.VB], retina], 1)
