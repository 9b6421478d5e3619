"""The renderer, what it is trained to, and the pipeline of both networks."""

import numpy as np
import pytest
import torch

from retinalogos.classifiers.configuration import GraderConfig
from retinalogos.classifiers.grader import fit_grader
from retinalogos.errors import UsageError
from retinalogos.generators.lesion_map import adversarial, maps, render_training
from retinalogos.generators.lesion_map.examples import Examples
from retinalogos.generators.lesion_map.perceptual import CohortMaps, PublishedMaps, distance
from retinalogos.generators.lesion_map.pipeline import LesionMapPipeline, load_render
from retinalogos.generators.lesion_map.render_training import RenderObjective, tensors

WHOLE = slice(None)


@pytest.fixture
def objective(eyes, render_config, render_loss) -> RenderObjective:
    return RenderObjective(eyes, render_config, render_loss, None, 4, 0)


def test_training_brings_photographs_nearer_to_the_real_ones(objective, eyes, training, tmp_path) -> None:
    maps_bchw, images = tensors(torch.from_numpy(eyes.classes), torch.from_numpy(eyes.images))

    def error() -> float:
        with torch.no_grad():
            mean, _ = objective.generator.encode(images)
            return float((objective.generator(maps_bchw, mean) - images).abs().mean())

    before = error()
    longer = training.model_copy(update={"steps": 25, "decay_share": 0.0})
    adversarial.train(objective, longer, tmp_path, tmp_path / "checkpoints", "test")
    assert error() < 0.8 * before
    objective.fit_styles()
    with torch.no_grad():
        mean, log_variance = objective.generator.encode(images)
    styles = objective.generator.sample_styles([torch.Generator().manual_seed(k) for k in range(4000)], 1.0)
    assert torch.allclose(styles.mean(0), mean.mean(0), atol=0.15)
    assert torch.allclose(styles.var(0), mean.var(0) + log_variance.exp().mean(0), rtol=0.2)


def test_no_term_sees_what_is_drawn_where_nothing_is_marked(eyes, render_config, render_loss) -> None:
    """Half of each map is unknown: another picture there, drawn by other weights of the output, changes no loss."""
    half = eyes.candidates.copy()
    half[:, :, 8:] = maps.bits(tuple(range(7)))
    partial = Examples(half, eyes.images, eyes.grades, eyes.patients, eyes.ids)
    objective = RenderObjective(partial, render_config, render_loss, None, 4, 0)
    maps_bchw, images, draws = objective._batch(0, WHOLE, 1)
    drawn, _ = objective._drawn(objective.generator, maps_bchw, images, draws)
    unknown = (maps_bchw.sum(1, keepdim=True) == 0).expand_as(images)
    assert unknown.any()
    assert torch.equal(drawn[unknown], images[unknown])
    assert not torch.allclose(drawn[~unknown], images[~unknown])
    nothing = Examples(np.full_like(half, 127), eyes.images, eyes.grades, eyes.patients, eyes.ids)
    blind = RenderObjective(nothing, render_config, render_loss, None, 4, 0)
    loss = blind.generator_loss(blind.generator, 0, WHOLE)
    slopes = torch.autograd.grad(loss, list(blind.generator.output.parameters()), allow_unused=True)
    assert all(slope is None or not slope.any() for slope in slopes)


def test_tones_count_and_what_is_fine_within_a_field_does_not(eyes, render_config, render_loss) -> None:
    told = {}
    for weight in (0.0, 10.0):
        objective = RenderObjective(eyes, render_config, render_loss.model_copy(update={"tone": weight}), None, 4, 0)
        told[weight] = [
            float(objective.generator_loss(objective.generator, 0, WHOLE).detach()),
            objective.after(0)["tone"],
        ]
    assert told[0.0][1] == 0
    assert told[10.0][0] - told[0.0][0] == pytest.approx(told[10.0][1], rel=1e-4)
    images = torch.rand(2, 3, 32, 32)
    board = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(16, 16)
    tones = render_training._tones
    assert torch.allclose(tones(images + board), tones(images), atol=1e-5)
    assert torch.allclose(tones(images + 0.2), tones(images) + 0.2, atol=1e-5)


def test_the_perceptual_network_is_used_or_refused_and_never_passed_over(eyes, render_config, render_loss) -> None:
    config = GraderConfig(
        backbone="small", size=32, widths=(8, 16), features=32, steps=2, batch_size=8, learning_rate=0.002,
        weight_decay=0.05, validate_every=2, rotation=0, zoom=0, brightness=0, colour=0, flip_swaps={},
    )  # fmt: skip
    network = CohortMaps(fit_grader(eyes.images, {"dr_grade": eyes.grades}, {"dr_grade": 5}, config, 0))
    _, images = tensors(torch.from_numpy(eyes.classes[:2]), torch.from_numpy(eyes.images[:2]))
    assert distance(network, images, images) == 0
    nearer, farther = (distance(network, images + far * torch.randn_like(images), images) for far in (0.05, 0.5))
    assert 0 < nearer < farther
    weighted = render_loss.model_copy(update={"perceptual": 1.0})
    with_it = RenderObjective(eyes, render_config, weighted, network, 4, 0)
    with_it.generator_loss(with_it.generator, 0, WHOLE)
    assert with_it.after(0)["perceptual"] > 0
    assert not any(weight.requires_grad for weight in network.parameters())
    with pytest.raises(UsageError, match=r"perceptual_network 'no/such-model'.*loss\.perceptual to 0"):
        PublishedMaps("no/such-model")


def test_pictures_of_pipelines(pipeline, tmp_path) -> None:
    drawn = pipeline.draw([0, 4, 4], [1, 1, 2])
    assert (drawn.shape, drawn.dtype) == ((3, 16, 16), np.uint8)
    images = pipeline.render(drawn, [1, 1, 2])
    pipeline.save_pretrained(tmp_path)
    loaded = LesionMapPipeline.from_pretrained(tmp_path)
    assert (loaded.draw([0, 4, 4], [1, 1, 2]) == drawn).all()
    assert (loaded.render(drawn, [1, 1, 2]) == images).all()
    assert (pipeline.render(drawn[1:], [1, 2]).astype(int) - images[1:] <= 1).all(), "a picture depends on no other"
    styles = pipeline.style_of(images)
    assert pipeline.render(drawn, styles=styles).shape == images.shape


def test_without_a_layout_network_maps_are_rendered_and_none_are_drawn(pipeline, tmp_path) -> None:
    LesionMapPipeline(None, pipeline.render_network).save_pretrained(tmp_path)
    loaded = LesionMapPipeline.from_pretrained(tmp_path)
    drawn = pipeline.draw([3], [1])
    np.testing.assert_array_equal(loaded.render(drawn, [1]), pipeline.render(drawn, [1]))
    with pytest.raises(UsageError, match="no layout network"):
        loaded.draw([3], [1])


@pytest.mark.parametrize("grade", [-1, 5, 2.5])
def test_only_icdr_grades_are_drawn(pipeline, grade) -> None:
    with pytest.raises(UsageError, match="is no ICDR grade"):
        pipeline.draw([grade], [0])


def test_what_cannot_be_rendered_is_refused(pipeline) -> None:
    with pytest.raises(UsageError, match="takes 16 × 16 pixels"):
        pipeline.render(maps.template(32)[None], [0])
    with pytest.raises(UsageError, match="either seeds or styles"):
        pipeline.render(maps.template(16)[None])
    with pytest.raises(UsageError, match="2 grades but 1 seeds"):
        pipeline.draw([0, 1], [0])


def test_an_edit_leaves_everything_else_as_it_was(pipeline) -> None:
    before = maps.template(16)
    before[6:9, 6:9] = maps.HE
    after = before.copy()
    after[6:9, 6:9] = maps.VB
    style = pipeline.styles([3])
    image = pipeline.render(before[None], styles=style)[0]
    edited = pipeline.edit(image, before, after, style, margin=2)
    assert (edited != image)[6:9, 6:9].any()
    outside = np.ones((16, 16), bool)
    outside[4:11, 4:11] = False
    assert (edited == image)[outside].all()
    assert (pipeline.edit(image, before, before, style, margin=2) == image).all()


def test_a_folder_without_a_network_is_named(tmp_path, pipeline) -> None:
    with pytest.raises(UsageError, match=r"holds no render network \(config\.json is missing\)"):
        load_render(tmp_path)
    pipeline.save_pretrained(tmp_path)
    (tmp_path / "render" / "model.safetensors").write_bytes(b"half")
    with pytest.raises(UsageError, match="damaged"):
        load_render(tmp_path / "render")
