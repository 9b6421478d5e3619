"""The layout networks and what they are trained to."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from retinalogos.errors import DataError
from retinalogos.generators.lesion_map import adversarial, maps
from retinalogos.generators.lesion_map.configuration import LayoutConfig
from retinalogos.generators.lesion_map.grain import mean_area
from retinalogos.generators.lesion_map.layout import GROUP, LayoutDiscriminator, LayoutGenerator, ModulatedConv, augment
from retinalogos.generators.lesion_map.layout_training import LayoutObjective, as_marked, as_shown, class_shares
from retinalogos.training import checkpoints

WHOLE = slice(None)


def test_modulation_is_a_convolution_by_kernels_of_its_own() -> None:
    """As the paper writes it: each sample's kernel is scaled by its style and brought to unit norm."""
    torch.manual_seed(0)
    layer = ModulatedConv(3, 5, 3, 4)
    x, style = torch.randn(2, 3, 6, 6), torch.randn(2, 4)
    factors = layer.style(style)
    for found, image, factor in zip(layer(x, style), x, factors, strict=True):
        kernel = layer.conv.weight * layer.conv.scale * factor[None, :, None, None]
        kernel = kernel / kernel.square().sum((1, 2, 3), keepdim=True).sqrt()
        assert torch.allclose(found, F.conv2d(image[None], kernel, padding=1)[0], atol=1e-5)


def test_a_map_depends_on_its_grade_and_seed_alone(pipeline) -> None:
    alone = pipeline.layout.draw([3], [7], 1.0)
    among = pipeline.layout.draw([0, 3, 3], [7, 7, 8], 1.0)
    assert torch.allclose(alone[0], among[1], atol=1e-5)
    assert not torch.allclose(among[0], among[1], atol=1e-3), "the grade counts"
    assert not torch.allclose(among[1], among[2], atol=1e-3), "the seed counts"
    assert torch.allclose(among.sum(1), torch.ones(3, 16, 16), atol=1e-5)


def test_truncation_goes_to_the_grades_mean_style(pipeline) -> None:
    generator = pipeline.layout
    styles = []
    hook = generator.first[0].register_forward_pre_hook(lambda module, given: styles.append(given[1]))
    for truncation in (0.0, 0.5, 1.0):
        generator.draw([2, 2], [1, 2], truncation)
    hook.remove()
    none, half, whole = styles
    assert torch.allclose(none, generator.centres[[2, 2]], atol=1e-6)
    assert torch.allclose(half, (none + whole) / 2, atol=1e-5)


def test_the_discriminator_sees_the_grade_and_how_much_a_batch_differs(layout_config) -> None:
    torch.manual_seed(0)
    judge = LayoutDiscriminator(layout_config)
    one = torch.rand(1, 7, 16, 16)
    alike, different = one.expand(4, -1, -1, -1), torch.cat([one, torch.rand(3, 7, 16, 16)])
    grades = torch.zeros(4, dtype=torch.long)
    assert judge(alike, grades)[0] != judge(alike, grades + 1)[0]
    assert judge(alike, grades)[0] != judge(different, grades)[0]


def test_augmentation_moves_maps_and_leaves_probabilities() -> None:
    classes = maps.template(16)[None].repeat(4, 0)
    classes[:, 3:6, 8:11] = maps.HE
    real = torch.from_numpy(maps.one_hot(classes))
    draws = torch.Generator().manual_seed(0)
    assert torch.allclose(augment(real, torch.zeros(()), draws), real, atol=1e-5)
    moved = augment(real, torch.ones(()), draws)
    assert torch.allclose(moved.sum(1), torch.ones(4, 16, 16), atol=1e-5)
    assert moved.min() > -1e-6
    assert all((each - real[0]).abs().mean() > 0.01 for each in moved)


def test_maps_lose_what_a_data_set_does_not_mark() -> None:
    whole = np.full((1, 4, 4), maps.bits((maps.VB,)), np.uint8)
    whole[0, 0, 0] = maps.bits((maps.EX,))
    partial = whole | np.where(whole == maps.bits((maps.VB,)), maps.bits((maps.OD, maps.MA)), 0).astype(np.uint8)
    shown, marked = as_shown(np.concatenate([whole, partial]))
    assert shown[0].tolist() == shown[1].tolist()
    assert marked.tolist() == [[True] * 7, [True, True, True, True, False, False, True]]
    drawn = torch.rand(2, 7, 4, 4).softmax(1)
    found = as_marked(drawn, torch.from_numpy(marked).float())
    assert torch.allclose(found[0], drawn[0])
    assert (found[1, [maps.MA, maps.OD]] == 0).all()
    assert torch.allclose(found[1, maps.VB], drawn[1, [maps.MA, maps.OD, maps.VB]].sum(0), atol=1e-6)
    unclear = np.full((1, 4, 4), maps.bits((maps.EX, maps.SE)), np.uint8)
    assert (as_shown(unclear)[0] == maps.UNKNOWN).all()


def test_an_untrained_network_with_the_prior_draws_classes_as_often_as_they_occur(layout_config) -> None:
    classes = maps.template(16)[None].repeat(40, 0)
    classes[20:, 4:12, 4:12] = maps.HE  # in every eye of grade 3, in none of grade 0
    grades = torch.tensor([0] * 20 + [3] * 20)
    generator = LayoutGenerator(layout_config)
    generator.start_from(torch.from_numpy(maps.one_hot(classes)), grades)
    shares = generator.draw([0, 3], [1, 2], 1.0).mean((2, 3))[:, maps.HE]
    assert shares[0] < 0.02
    assert shares[1] > 0.1
    outside = generator.draw([3], [1], 1.0)[0, maps.BG, 0, 0]
    assert outside > 0.5


def test_lesions_are_matched_in_number_and_size(draw_phantom) -> None:
    """A network of any weights draws as much of each lesion as the eyes of a grade have, in pieces as large."""
    eyes, widths = draw_phantom(80, 64), (16, 16, 16, 16, 16)
    deep = LayoutConfig(size=64, latent=16, mapping_layers=2, widths=widths, discriminator_widths=widths, prior=True)
    torch.manual_seed(0)
    generator, classes, grades = LayoutGenerator(deep), eyes.classes, torch.from_numpy(eyes.grades)
    generator.start_from(torch.from_numpy(maps.one_hot(classes)), grades)
    with torch.no_grad():
        for output in generator.outputs:
            output.conv.weight.normal_(std=0.3)
    shares = class_shares(torch.from_numpy(classes), torch.ones(80, 7), grades)
    asked = [grade for grade in range(5) for _ in range(40)]

    def blood() -> tuple[np.ndarray, float]:
        drawn = generator.draw(asked, list(range(200)), 1.0).argmax(1).numpy() == maps.HE
        return drawn.mean((1, 2)).reshape(5, 40).mean(1), mean_area(drawn)

    wanted, area = shares[:, maps.HE].numpy(), mean_area(classes == maps.HE)
    _, dust = blood()
    generator.match(classes, grades, shares, 0)
    found, matched = blood()
    assert found[3:] == pytest.approx(wanted[3:], rel=0.3)
    assert 0.3 * wanted[2] < found[2] < 0.3 * wanted[3], "few, of forty maps of random weights"
    assert found[0] < 0.0005, "grade 0 has none"
    assert abs(np.log(matched / area)) < 0.35 < abs(np.log(dust / area))


def test_lesions_are_matched_in_place(layout_config) -> None:
    """A network that has learnt to draw lesions at the wrong side draws them at the right one."""
    classes = maps.template(16)[None].repeat(20, 0)
    classes[:, 6:10, 3:6] = maps.HE
    generator, grades = LayoutGenerator(layout_config), torch.full((20,), 3)
    generator.start_from(torch.from_numpy(maps.one_hot(classes[:, :, ::-1].copy())), grades)
    shares = class_shares(torch.from_numpy(classes), torch.ones(20, 7), grades)

    def left() -> float:
        drawn = generator.draw([3] * 20, list(range(20)), 1.0)[:, maps.HE]
        return float(drawn[:, :, :8].sum() / drawn.sum())

    assert left() < 0.1
    generator.match(classes, grades, shares, 0)
    assert left() > 0.9


def test_how_sure_a_network_is_of_the_retina_leaves_lesions(layout_config) -> None:
    """Nor do lesions cling to the disc, about whose rim it is least sure."""
    classes = maps.template(16)[None].repeat(20, 0)
    classes[:, 6:10, 3:6], classes[:, 6:10, 9:12] = maps.HE, maps.OD
    generator = LayoutGenerator(layout_config)
    generator.start_from(torch.from_numpy(maps.one_hot(classes)), torch.full((20,), 3))
    before = generator.draw([3] * 20, list(range(20)), 1.0).mean((0, 2, 3))
    with torch.no_grad():
        generator.bias[maps.VB] = 8
    after = generator.draw([3] * 20, list(range(20)), 1.0).mean((0, 2, 3))
    assert after[maps.OD] < 0.1 * before[maps.OD]
    assert after[maps.HE] >= before[maps.HE] > 0.01


def test_shares_are_of_the_eyes_that_mark_a_class() -> None:
    classes = torch.full((3, 2, 2), maps.VB, dtype=torch.uint8)
    classes[0, 0, 0] = maps.HE
    marked = torch.ones(3, 7)
    marked[1, maps.HE] = 0
    marked[2, maps.HE] = 0
    shares = class_shares(classes, marked, torch.tensor([2, 2, 4]))
    assert shares[2, maps.HE] == 0.25
    assert shares[2, maps.VB] == (0.75 + 1) / 2
    assert torch.isnan(shares[4, maps.HE])
    assert torch.isnan(shares[0]).all()


def test_eyes_without_a_grade_are_left_out(eyes, layout_config, layout_loss) -> None:
    ungraded = eyes.take(np.arange(len(eyes)))
    ungraded.grades[:5] = -1
    assert LayoutObjective(ungraded, layout_config, layout_loss, 4, 0).left_out == 5
    ungraded.grades[:] = -1
    with pytest.raises(DataError, match="ICDR grade"):
        LayoutObjective(ungraded, layout_config, layout_loss, 4, 0)


def test_a_killed_training_ends_like_one_that_was_not(
    eyes, layout_config, layout_loss, training, tmp_path, monkeypatch
) -> None:
    def fit(folder) -> LayoutGenerator:
        objective = LayoutObjective(eyes, layout_config, layout_loss, training.batch_size, 0)
        adversarial.train(objective, training, folder, folder / "checkpoints", "test")
        return objective.generator

    def save_and_die(folder, step, state):
        save(folder, step, state)
        raise KeyboardInterrupt

    save = checkpoints.save
    whole = fit(tmp_path / "whole")
    monkeypatch.setattr(checkpoints, "save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "killed")
    monkeypatch.setattr(checkpoints, "save", save)
    resumed = fit(tmp_path / "killed")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    logs = [(tmp_path / name / "log.jsonl").read_text() for name in ("whole", "killed")]
    assert logs[0] == logs[1]
    last = json.loads(logs[0].splitlines()[-1])
    assert last["step"] == training.steps
    assert (tmp_path / "whole" / "samples" / "step-000004.png").is_file()
    assert 0 <= last["augmentation"] <= 1


def test_a_gradient_that_is_not_finite_stops_with_its_step(eyes, layout_config, layout_loss, training, tmp_path):
    objective = LayoutObjective(eyes, layout_config, layout_loss, training.batch_size, 0)
    with torch.no_grad():
        objective.discriminator.real.bias.fill_(float("nan"))
    with pytest.raises(DataError, match=r"discriminator's gradient is not finite at step 0"):
        adversarial.train(objective, training, tmp_path, tmp_path / "checkpoints", "test")
    (path,) = (tmp_path / "checkpoints").glob("not-finite-*.pt")
    assert torch.load(path, weights_only=True)["network"] == "discriminator"


def test_the_generator_learns_what_the_discriminator_takes_for_real(eyes, layout_config, layout_loss) -> None:
    """The gradient passes through the classes that are drawn: against the same discriminator the loss falls."""
    objective = LayoutObjective(eyes, layout_config, layout_loss, 8, 0)

    def loss() -> float:
        with torch.no_grad():
            return float(np.mean([objective.generator_loss(objective.generator, step, WHOLE) for step in range(8)]))

    before = loss()
    optimizer = torch.optim.Adam(objective.generator.parameters(), 0.02)
    for step in range(8, 24):
        optimizer.zero_grad()
        objective.generator_loss(objective.generator, step, WHOLE).backward()
        optimizer.step()
    assert loss() < 0.98 * before


def test_a_pixel_has_one_class_drawn_by_its_probability(layout_config) -> None:
    generator = LayoutGenerator(layout_config)
    with torch.no_grad():
        for output in generator.outputs:
            output.conv.weight.zero_()
        generator.prior.copy_(torch.tensor([0.5, 0.2, 0.1, 0.1, 0.05, 0.03, 0.02]).log()[:, None, None])
    drawn = generator.draw([0] * 20, list(range(20)), 1.0)
    assert torch.isclose(drawn.amax(1), torch.ones(())).all()
    assert torch.allclose(drawn.sum(1), torch.ones(()), atol=1e-5)
    shares = drawn.mean((0, 2, 3))
    assert torch.allclose(shares, generator.prior[0, :, 0, 0].exp(), atol=0.02)


def test_a_config_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a width for each"):
        LayoutConfig(size=32, latent=8, mapping_layers=1, widths=(8, 8, 8), discriminator_widths=(8, 8, 8), prior=False)


def test_neighbours_in_a_batch_are_of_one_grade_and_the_discriminator_compares_those(
    eyes, layout_config, layout_loss
) -> None:
    objective = LayoutObjective(eyes, layout_config, layout_loss, 16, 0)
    seen = set()
    for step in range(40):
        grades = eyes.grades[objective._rows(step, WHOLE).numpy()].reshape(-1, GROUP)
        assert (grades == grades[:, :1]).all()
        seen |= set(grades.ravel().tolist())
    assert seen == set(eyes.grades.tolist())
    judge = objective.discriminator
    maps_bchw = torch.rand(8, 7, 16, 16)
    alike = torch.cat([maps_bchw[:1].expand(4, -1, -1, -1), maps_bchw[4:]])
    grades = torch.zeros(8, dtype=torch.long)
    assert judge(maps_bchw, grades)[0] != judge(alike, grades)[0], "its own group differs"
    assert torch.allclose(judge(maps_bchw, grades)[4:], judge(alike, grades)[4:]), "another group does not count"


def test_styles_of_a_grade_differ_at_the_start_by_more_than_those_of_two_grades() -> None:
    widths = (8, 8, 8)
    deep = LayoutConfig(size=16, latent=64, mapping_layers=8, widths=widths, discriminator_widths=widths, prior=False)
    torch.manual_seed(0)
    generator, z = LayoutGenerator(deep), torch.randn(200, 64)
    with torch.no_grad():
        styles = torch.stack([generator.styles(z, torch.full((200,), grade)) for grade in (0, 4)])
    within, between = styles.var(1).mean(), styles.mean(1).var(0).mean()
    assert within > between > 0
