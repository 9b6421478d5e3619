"""The grader learns, forgets nothing on disk, and takes backbones by name."""

import itertools
import json
import sys
import types

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from tiny_retfound import SIDE, mae_features, save_tiny_retfound
from torch.nn import functional as F
from transformers import AutoConfig, AutoImageProcessor, AutoModel, ResNetConfig, ViTConfig, ViTImageProcessor

from retinalogos.classifiers.grader import Grader, fit_grader, resize
from retinalogos.classifiers.network import SmallBackbone, by_depth, laplacian_bands, normalise
from retinalogos.errors import DataError, UsageError
from retinalogos.vision_transformer import read_retfound

CLASSES = {"dr_grade": 3, "glaucoma": 2, "eye": 2}


@pytest.fixture(scope="module")
def trained(eyes, small_config) -> Grader:
    return fit_grader(*eyes(240, 0), CLASSES, small_config, seed=0, validation=eyes(60, 1))


def test_learns_every_task_on_eyes_it_has_not_seen(trained, eyes):
    images, labels = eyes(200, 2)
    found = trained.predict(images)
    for task, least in {"glaucoma": 0.95, "eye": 0.95, "dr_grade": 0.7}.items():
        assert found[task].sum(1) == pytest.approx(1, abs=1e-5)
        areas = [roc_auc_score(labels[task] == c, found[task][:, c]) for c in range(CLASSES[task])]
        assert np.mean(areas) > least, task


def test_shuffled_labels_give_no_certainty(eyes, small_config):
    images, labels = eyes(240, 0)
    order = np.random.default_rng(0).permutation(len(images))
    shuffled = {"glaucoma": labels["glaucoma"][order]}
    grader = fit_grader(images, shuffled, {"glaucoma": 2}, small_config, seed=0)
    images, _ = eyes(200, 2)
    assert np.abs(grader.predict(images)["glaucoma"] - 0.5).mean() < 0.15


def test_a_mirrored_eye_is_the_other_eye(trained, eyes):
    images, labels = eyes(100, 3)
    mirrored = trained.predict(images[:, :, ::-1].copy())["eye"].argmax(1)
    assert (mirrored == 1 - labels["eye"]).mean() > 0.9


def test_without_the_swap_mirror_images_hide_the_side(trained, eyes, small_config):
    unswapped = small_config.model_copy(update={"flip_swaps": {}})
    images, labels = eyes(240, 0)
    grader = fit_grader(images, labels, {"eye": 2}, unswapped, seed=0)
    images, labels = eyes(200, 2)
    right = [(g.predict(images)["eye"].argmax(1) == labels["eye"]).mean() for g in (trained, grader)]
    assert right[0] > 0.9
    assert right[1] < 0.65


def test_a_rare_class_is_found(eyes, small_config):
    images, labels = eyes(400, 4)
    kept = np.flatnonzero((labels["glaucoma"] == 0) | (np.cumsum(labels["glaucoma"]) <= 12))
    grader = fit_grader(images[kept], {"glaucoma": labels["glaucoma"][kept]}, {"glaucoma": 2}, small_config, seed=0)
    images, labels = eyes(200, 2)
    found = grader.predict(images)["glaucoma"].argmax(1)
    assert (found == 1)[labels["glaucoma"] == 1].mean() > 0.7


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(eyes, small_config):
    short = small_config.model_copy(update={"steps": 6})
    images, labels = eyes(40, 0)
    before = torch.random.get_rng_state()
    first, again, other = (fit_grader(images, labels, CLASSES, short, seed) for seed in (3, 3, 4))
    assert torch.equal(before, torch.random.get_rng_state())
    for task, values in first.predict(images).items():
        assert np.array_equal(values, again.predict(images)[task])
        assert not np.allclose(values, other.predict(images)[task])


def test_unknown_labels_change_nothing(eyes, small_config):
    short = small_config.model_copy(update={"steps": 6})
    images, labels = eyes(40, 0)
    blind = {**labels, "dr_grade": np.where(np.arange(40) < 2, labels["dr_grade"], -1)}
    grader = fit_grader(images, blind, CLASSES, short, seed=0)
    assert np.isfinite(grader.predict(images)["dr_grade"]).all()
    with pytest.raises(DataError, match="task dr_grade: no training image has a label"):
        fit_grader(images, {**labels, "dr_grade": np.full(40, -1)}, CLASSES, short, seed=0)


@pytest.mark.parametrize(("scores", "best"), [([0.1, 0.2, 0.9, 0.4], 2), ([0.9, 0.2, 0.8, 0.4], 0)])
def test_the_best_state_on_the_validation_images_is_kept(eyes, small_config, monkeypatch, scores, best):
    seen, scores = [], iter(scores)

    def score(grader, images, labels):
        seen.append({name: value.clone() for name, value in grader.network.state_dict().items()})
        return next(scores)

    monkeypatch.setattr("retinalogos.classifiers.grader._score", score)
    config = small_config.model_copy(update={"steps": 6, "validate_every": 2})
    grader = fit_grader(*eyes(40, 0), CLASSES, config, seed=0, validation=eyes(10, 1))
    kept = grader.network.state_dict()
    assert len(seen) == 4
    assert all(torch.equal(value, seen[best][name]) for name, value in kept.items())
    assert not all(torch.equal(value, seen[3][name]) for name, value in kept.items())


def test_training_starts_from_logistic_regression_on_the_moments(eyes, small_config, monkeypatch):
    started = []
    monkeypatch.setattr("retinalogos.classifiers.grader._train", lambda network, *_: started.append(network.eval()))
    images, labels = eyes(120, 0)
    fit_grader(images, labels, CLASSES, small_config, seed=0)
    (network,) = started
    x = normalise(images, network.backbone, torch.device("cpu"))
    with torch.no_grad():
        moments = network.backbone(x)[:, -network.backbone.given :].numpy()
        logits = network(x)
    assert moments.mean(0) == pytest.approx(0, abs=1e-3)
    for task in ("dr_grade", "glaucoma"):
        # Of two classes scikit-learn has one row of weights where the softmax has two, so half the penalty.
        inverse = 10 if CLASSES[task] > 2 else 20
        model = LogisticRegression(C=inverse, max_iter=5000, tol=1e-8).fit(moments, labels[task])
        share = np.bincount(labels[task]) + 1
        found = (logits[task] + torch.tensor(np.log(share / share.sum()))).softmax(1)
        np.testing.assert_allclose(found.numpy(), model.predict_proba(moments), atol=2e-3)
    assert logits["eye"].softmax(1)[:, 0].std() < 0.2


def test_too_few_hidden_units_are_refused(eyes, small_config):
    with pytest.raises(UsageError, match="features 8: these tasks need at least 10"):
        fit_grader(*eyes(40, 0), CLASSES, small_config.model_copy(update={"features": 8}), seed=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"glaucoma": np.array([0, 1, 2, 0])}, "task glaucoma, image 2: label 2 is not one of"),
        ({"glaucoma": np.array([0, 1])}, "task glaucoma: .* labels for 4 images"),
    ],
)
def test_wrong_labels_are_refused(eyes, small_config, change, message):
    images, labels = eyes(4, 0)
    with pytest.raises(DataError, match=message):
        fit_grader(images, {**labels, **change}, CLASSES, small_config, seed=0)


def test_wrong_settings_are_refused(eyes, small_config):
    images, labels = eyes(4, 0)
    for change, message in (
        ({"flip_swaps": {"eye": (0, 0)}}, r"flip_swaps\.eye"),
        ({"widths": (12,)}, "multiple of 8"),
    ):
        wrong = small_config.model_copy(update=change)
        with pytest.raises(UsageError, match=message):
            fit_grader(images, labels, CLASSES, wrong, seed=0)


def test_a_grader_comes_back_from_disk_as_it_was(trained, eyes, tmp_path):
    trained.save(tmp_path / "grader")
    assert sorted(p.name for p in (tmp_path / "grader").iterdir()) == ["grader.json", "grader.safetensors"]
    back = Grader.load(tmp_path / "grader")
    images, _ = eyes(20, 5)
    assert back.config == trained.config
    assert np.array_equal(back.features(images), trained.features(images))
    assert all(np.array_equal(v, back.predict(images)[t]) for t, v in trained.predict(images).items())
    with pytest.raises(UsageError, match=r"no grader\.json"):
        Grader.load(tmp_path)


def test_features_are_those_under_the_heads(trained, eyes):
    images, _ = eyes(70, 6)
    features = trained.features(images)
    assert features.shape == (70, 32)
    assert features.dtype == np.float32
    logits = trained.network.heads["eye"](torch.from_numpy(features)).softmax(1).numpy(force=True)
    assert logits == pytest.approx(trained.predict(images)["eye"], abs=1e-6)
    assert trained.features(images[:0]).shape == (0, 32)
    assert trained.predict(images[:0])["dr_grade"].shape == (0, 3)


def test_resize_averages_areas():
    image = np.zeros((1, 4, 4, 3), np.uint8)
    image[0, :2, :2] = [[[100], [0]], [[0], [100]]]
    assert resize(image, 2)[0, :, :, 0].tolist() == [[50, 0], [0, 0]]
    assert resize(image, 4) is image


def _tiny(kind: str, folder) -> str:
    if kind == "resnet":
        config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    else:
        config = ViTConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=32,
            patch_size=8,
        )
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.4] * 3, image_std=[0.2] * 3).save_pretrained(
        folder
    )
    return str(folder)


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_backbones_of_transformers_are_trained_saved_and_loaded_by_the_same_calls(
    kind, eyes, small_config, tmp_path, monkeypatch
):
    name = _tiny(kind, tmp_path / "backbone")
    config = small_config.model_copy(update={"backbone": name, "size": 32, "steps": 4})
    images, labels = eyes(40, 0)
    grader = fit_grader(images, labels, CLASSES, config, seed=0)
    backbone = grader.network.backbone
    assert type(backbone.model) is type(AutoModel.from_config(AutoConfig.from_pretrained(name)))
    assert backbone.mean == tuple(AutoImageProcessor.from_pretrained(name).image_mean)
    start = AutoModel.from_pretrained(name).state_dict()
    moved = [not torch.equal(v, start[k]) for k, v in backbone.model.state_dict().items()]
    assert any(moved)
    # The start is the folder's weights: four small steps away from them.
    assert all(torch.allclose(v, start[k], atol=0.1) for k, v in backbone.model.named_parameters())
    grader.save(tmp_path / "grader")
    (tmp_path / "backbone").rename(tmp_path / "gone")
    back = Grader.load(tmp_path / "grader")
    assert back.network.backbone.mean == pytest.approx((0.4, 0.4, 0.4))
    assert np.array_equal(back.features(images), grader.features(images))
    assert "backbone" in json.loads((tmp_path / "grader" / "grader.json").read_text())


def test_retfound_is_a_backbone_by_its_file(eyes, small_config, tmp_path):
    file = tmp_path / "retfound.pth"
    weights = save_tiny_retfound(file)
    config = small_config.model_copy(update={"backbone": f"retfound:{file}", "size": SIDE, "steps": 1})
    images, labels = eyes(40, 0)
    # A step of no length: the published weights, and the normalisation at its start.
    grader = fit_grader(images, labels, CLASSES, config.model_copy(update={"learning_rate": 1e-12}), seed=0)
    batch = resize(images[:3], SIDE)
    with torch.no_grad():
        found = grader.network.backbone(normalise(batch, grader.network.backbone, torch.device("cpu")))
    expected = mae_features(weights, torch.from_numpy(batch).permute(0, 3, 1, 2).float())
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-3, atol=1e-3)
    trained = fit_grader(images, labels, CLASSES, config.model_copy(update={"steps": 60}), seed=0)
    unseen, truth = eyes(100, 1)
    assert roc_auc_score(truth["glaucoma"], trained.predict(unseen)["glaucoma"][:, 1]) > 0.8
    trained.save(tmp_path / "grader")
    file.rename(tmp_path / "gone.pth")
    assert np.array_equal(Grader.load(tmp_path / "grader").features(images), trained.features(images))


def test_retfound_without_its_weights_has_their_sizes_alone(eyes, small_config, tmp_path):
    file = tmp_path / "retfound.pth"
    weights = save_tiny_retfound(file)
    config = small_config.model_copy(update={"backbone": f"retfound:{file}", "size": SIDE, "steps": 1})
    images, labels = eyes(20, 0)
    grader = fit_grader(images, labels, CLASSES, config.model_copy(update={"pretrained": False}), seed=0)
    embeddings = grader.network.backbone.model.embeddings
    assert embeddings.position_embeddings.shape == weights["pos_embed"].shape
    assert (embeddings.cls_token.detach() - weights["cls_token"]).abs().max() > 0.05
    with pytest.raises(UsageError, match="takes images of 32 px, not 48: set `size` to 32"):
        fit_grader(images, labels, CLASSES, config.model_copy(update={"size": 48}), seed=0)
    file.rename(tmp_path / "gone.pth")
    with pytest.raises(UsageError, match=r"retfound\.pth: .*name the file, retfound:FILE"):
        fit_grader(images, labels, CLASSES, config, seed=0)


def test_backbones_that_cannot_be_are_refused(eyes, small_config, tmp_path):
    images, labels = eyes(4, 0)
    missing = small_config.model_copy(update={"backbone": str(tmp_path / "nothing")})
    with pytest.raises(UsageError, match="neither 'small' nor an image model"):
        fit_grader(images, labels, CLASSES, missing, seed=0)
    vit = small_config.model_copy(update={"backbone": _tiny("vit", tmp_path / "vit")})
    with pytest.raises(UsageError, match="takes images of 32 px, not 48"):
        fit_grader(images, labels, CLASSES, vit, seed=0)


def test_bands_of_the_pyramid_sum_to_the_image():
    x = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    bands = laplacian_bands(x)
    assert [band.shape[-1] for band in bands] == [48, 24, 12, 6]
    rebuilt = F.avg_pool2d(x, 2 ** len(bands))
    for band in reversed(bands):
        rebuilt = band + F.interpolate(rebuilt, size=band.shape[-2:], mode="bilinear", align_corners=False)
    assert torch.allclose(rebuilt, x, atol=1e-5)


def test_features_see_a_dark_spot_and_not_the_brightness():
    backbone = SmallBackbone((8, 16)).eval()
    with torch.inference_mode():
        plain = torch.zeros(1, 3, 32, 32)
        spot = plain.clone()
        spot[:, :, 10:13, 10:13] = -1
        moments = [backbone(x)[0, 2 * 16 :] for x in (plain, plain + 0.5, spot)]
    assert torch.allclose(moments[0], moments[1], atol=1e-5)
    assert (moments[2] - moments[0]).abs().max() > 0.1


def test_without_balance_the_rare_class_is_still_told_at_equal_frequencies(eyes, small_config):
    images, labels = eyes(300, 4)
    kept = np.flatnonzero((labels["glaucoma"] == 0) | (np.cumsum(labels["glaucoma"]) <= 15))
    config = small_config.model_copy(update={"balanced": False, "steps": 60})
    grader = fit_grader(images[kept], {"glaucoma": labels["glaucoma"][kept]}, {"glaucoma": 2}, config, seed=0)
    images, labels = eyes(200, 2)
    found = grader.predict(images)["glaucoma"]
    assert roc_auc_score(labels["glaucoma"], found[:, 1]) > 0.95
    assert (found.argmax(1) == 1)[labels["glaucoma"] == 1].mean() > 0.7


def test_the_mean_of_the_weights_is_kept_and_not_the_last_ones(eyes, small_config):
    images, labels = eyes(40, 0)
    short = small_config.model_copy(update={"steps": 3})
    last, mean, almost_last = (
        fit_grader(images, labels, CLASSES, short.model_copy(update={"averaging": decay}), seed=0)
        for decay in (0.0, 0.9, 1e-9)
    )
    ends = [grader.network.neck.weight for grader in (last, mean, almost_last)]
    assert torch.allclose(ends[0], ends[2], atol=1e-6)
    assert not torch.allclose(ends[0], ends[1], atol=1e-4)
    assert not mean.network.training


def test_smoothed_labels_give_less_certain_answers(eyes, small_config):
    images, labels = eyes(120, 0)
    sure, smoothed = (
        fit_grader(
            images, labels, CLASSES, small_config.model_copy(update={"steps": 60, "label_smoothing": share}), seed=0
        ).predict(images)["glaucoma"]
        for share in (0.0, 0.3)
    )
    assert smoothed.max(1).mean() < sure.max(1).mean() - 0.05


def test_a_start_without_the_regression_is_a_start_from_nothing(eyes, small_config, monkeypatch):
    started = []
    monkeypatch.setattr("retinalogos.classifiers.grader._train", lambda network, *_: started.append(network.eval()))
    images, labels = eyes(60, 0)
    fit_grader(images, labels, CLASSES, small_config.model_copy(update={"pretrained": False}), seed=0)
    (network,) = started
    assert network.backbone.moments_std.max() != 1, "the scale of the moments is set all the same"
    with torch.no_grad():
        found = network(normalise(images, network.backbone, torch.device("cpu")))["glaucoma"].softmax(1)[:, 1]
    assert 0.2 < roc_auc_score(labels["glaucoma"], found.numpy()) < 0.8


def test_the_backbone_learns_at_its_own_rate(eyes, small_config, tmp_path):
    name = _tiny("resnet", tmp_path / "backbone")
    images, labels = eyes(40, 0)
    start = AutoModel.from_pretrained(name).state_dict()
    moved = []
    for rate in (1.0, 0.01):
        config = small_config.model_copy(update={"backbone": name, "size": 32, "steps": 4, "backbone_rate": rate})
        grader = fit_grader(images, labels, CLASSES, config, seed=0)
        weights = grader.network.backbone.model.named_parameters()
        moved.append(max(float((value.detach() - start[key]).abs().max()) for key, value in weights))
    assert moved[1] < 0.05 * moved[0]


def test_blocks_learn_at_less_the_deeper_they_lie(eyes, small_config, tmp_path):
    file = tmp_path / "retfound.pth"
    save_tiny_retfound(file)
    start = read_retfound(file).state_dict()
    told = {"backbone": f"retfound:{file}", "size": SIDE, "steps": 1, "weight_decay": 0.0}
    told |= {"backbone_rate": 0.5, "layer_decay": 0.65}
    grader = fit_grader(*eyes(40, 0), CLASSES, small_config.model_copy(update=told), seed=0)
    moved = {"": 0.0, "layers.0": 0.0, "layers.1": 0.0}
    for key, value in grader.network.backbone.model.named_parameters():
        place = next((name for name in moved if name and key.startswith(name)), "")
        moved[place] = max(moved[place], float((value.detach() - start[key]).abs().max()))
    # Adam's first step is as long as the rate, and what follows the last block has that of the backbone.
    rate = float((grader.network.backbone.norm.weight.detach() - 1).abs().max())
    wanted = {"": 0.65**3, "layers.0": 0.65**2, "layers.1": 0.65}
    assert {key: value / rate for key, value in moved.items()} == pytest.approx(wanted, rel=0.02)


@pytest.mark.parametrize(
    ("model", "depths"),
    [
        (ResNetConfig(hidden_sizes=[8, 16], depths=[2, 1], embedding_size=8, layer_type="basic"), 5),
        (ViTConfig(hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=16, image_size=32,
                   patch_size=8), 5),
    ],
    ids=["resnet", "vit"],
)  # fmt: skip
def test_every_parameter_has_one_depth_and_the_stem_the_greatest(model, depths):
    network = AutoModel.from_config(model)
    found = by_depth(network)
    assert max(found) + 1 == depths
    assert sorted(map(id, itertools.chain(*found.values()))) == sorted(map(id, network.parameters()))
    assert next(network.parameters()) is found[depths - 1][0]


def test_a_backbone_without_blocks_cannot_have_rates_by_block(eyes, small_config, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", types.SimpleNamespace(create_model=lambda *_, **__: _Pooled()))
    config = small_config.model_copy(update={"backbone": "timm:pooled", "size": 32, "layer_decay": 0.65})
    with pytest.raises(UsageError, match=r"layer_decay 0\.65: backbone 'timm:pooled' has no numbered blocks"):
        fit_grader(*eyes(20, 0), CLASSES, config, seed=0)


def test_weights_are_random_where_published_ones_are_not_wanted(eyes, small_config, tmp_path):
    name = _tiny("vit", tmp_path / "backbone")
    config = small_config.model_copy(update={"backbone": name, "size": 32, "steps": 1, "pretrained": False})
    grader = fit_grader(*eyes(20, 0), CLASSES, config, seed=1)  # that of the folder's weights is 0
    start = AutoModel.from_pretrained(name).state_dict()
    weights = dict(grader.network.backbone.model.named_parameters())
    key = next(key for key in weights if "patch_embeddings" in key and key.endswith("weight"))
    assert (weights[key] - start[key]).abs().max() > 0.02


class _Pooled(torch.nn.Module):
    """As timm's models without a classifier: pooled features, and a note of what they were trained on."""

    num_features = 6

    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 6, 8, 8)
        self.pretrained_cfg = {"mean": (0.4, 0.4, 0.4), "std": (0.2, 0.2, 0.2), "input_size": (3, 32, 32),
                               "fixed_input_size": True}  # fmt: skip

    def forward(self, x):
        return self.stem(x).mean((2, 3))


def test_models_of_timm_are_taken_by_name(eyes, small_config, tmp_path, monkeypatch):
    asked = []

    def create_model(name, pretrained, num_classes):
        asked.append((name, pretrained, num_classes))
        if name != "pooled":
            raise RuntimeError(f"Unknown model ({name})")
        return _Pooled()

    monkeypatch.setitem(sys.modules, "timm", types.SimpleNamespace(create_model=create_model))
    images, labels = eyes(20, 0)
    config = small_config.model_copy(update={"backbone": "timm:pooled", "size": 32, "steps": 2})
    grader = fit_grader(images, labels, CLASSES, config, seed=0)
    grader.save(tmp_path / "grader")
    back = Grader.load(tmp_path / "grader")
    assert asked == [("pooled", True, 0), ("pooled", False, 0)]
    assert np.array_equal(back.features(images), grader.features(images))
    with pytest.raises(UsageError, match="takes images of 32 px, not 48"):
        fit_grader(images, labels, CLASSES, config.model_copy(update={"size": 48}), seed=0)
    with pytest.raises(UsageError, match="timm:nothing: timm cannot make it"):
        fit_grader(images, labels, CLASSES, config.model_copy(update={"backbone": "timm:nothing"}), seed=0)


def test_without_timm_its_models_are_refused_with_advice(eyes, small_config, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    config = small_config.model_copy(update={"backbone": "timm:resnet50"})
    with pytest.raises(UsageError, match=r"needs timm.*retinalogos\[timm\]"):
        fit_grader(*eyes(4, 0), CLASSES, config, seed=0)
