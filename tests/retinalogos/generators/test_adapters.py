import copy
import json

import pytest
import torch
from backbones_at_hand import TINY, inputs, jolt, tiny
from peft import PeftModel
from short_training import TRAINING

from retinalogos.errors import UsageError
from retinalogos.generators.text.adapters import adapt, save_and_merge
from retinalogos.generators.text.backbones import velocity
from retinalogos.generators.text.configuration import AdapterConfig
from retinalogos.training.loop import train

ATTENTION = AdapterConfig(rank=2, alpha=None, target_modules=["to_q", "to_k", "to_v", "to_out.0"])
SETTINGS = TRAINING.model_copy(
    update={
        "batch_size": 2,
        "pieces": 1,
        "learning_rate": 0.05,
        "ema_decay": 0.5,
        "checkpoint_every": 2,
        "log_every": 4,
    }
)


def loss(model, step, rows):
    x, t, text, mask, pooled = inputs(2, seed=9 if step is None else step)
    return (velocity(model, None, x, t, text, mask, pooled)[0] - 1).square().mean()


def predicted(model):
    with torch.no_grad():
        return velocity(model.eval(), None, *inputs())[0]


@pytest.mark.parametrize("name", TINY)
def test_only_adapters_learn_and_what_is_merged_or_loaded_predicts_the_same(name, tmp_path):
    base = jolt(tiny(name))
    backbone = copy.deepcopy(base)
    adapted = adapt(backbone, ATTENTION, seed=0)
    torch.testing.assert_close(predicted(backbone), predicted(base))
    before = {key: value.clone() for key, value in backbone.state_dict().items()}

    train(backbone, loss, SETTINGS, tmp_path / "log", tmp_path / "checkpoints", "test")
    changed = {key for key, value in backbone.state_dict().items() if not torch.equal(value, before[key])}
    assert changed
    assert changed == {key for key in before if "lora_" in key}
    assert changed == {key for key, weight in backbone.named_parameters() if weight.requires_grad}

    learned = predicted(backbone)
    assert (learned - predicted(base)).abs().max() > 1e-3
    save_and_merge(adapted, tmp_path / "adapter")
    assert type(backbone) is type(base)
    assert backbone.state_dict().keys() == base.state_dict().keys()
    torch.testing.assert_close(predicted(backbone), learned, atol=1e-5, rtol=1e-5)
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    carried = PeftModel.from_pretrained(base, tmp_path / "adapter").get_base_model()
    torch.testing.assert_close(predicted(carried), learned, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", TINY)
def test_a_stopped_run_ends_with_the_same_adapters(name, tmp_path):
    def stopped(model, step, rows):
        if step == 3:
            raise KeyboardInterrupt
        return loss(model, step, rows)

    def run(objective, folder):
        backbone = jolt(tiny(name))
        adapt(backbone, ATTENTION, seed=0)
        return train(backbone, objective, SETTINGS, tmp_path / "log", tmp_path / folder, "test").state_dict()

    with pytest.raises(KeyboardInterrupt):
        run(stopped, "a")
    saved = torch.load(tmp_path / "a" / "step-00000002.pt", weights_only=True)
    for part in (saved["model"], saved["averages"]["decaying"]):
        assert part
        assert all("lora_" in key for key in part)
    resumed, whole = run(loss, "a"), run(loss, "b")
    assert all(torch.equal(resumed[key], whole[key]) for key in whole)


def test_alpha_scales_what_adapters_add():
    outputs = []
    for alpha in (None, 2, 4):
        backbone = jolt(tiny("next_dit"))
        adapt(backbone, ATTENTION.model_copy(update={"alpha": alpha}), seed=0)
        outputs.append(backbone.layers[0].attn1.to_q.scaling["default"])
    assert outputs == [1.0, 1.0, 2.0]


def test_the_seed_decides_the_start_and_the_file_does_not_depend_on_the_order_of_targets(tmp_path):
    texts = []
    for i, targets in enumerate((["to_v", "to_q", "to_k"], ["to_k", "to_v", "to_q", "to_q"])):
        adapted = adapt(tiny("unet"), ATTENTION.model_copy(update={"target_modules": targets}), seed=3)
        save_and_merge(adapted, tmp_path / str(i))
        texts.append([path.read_bytes() for path in sorted((tmp_path / str(i)).iterdir())])
    assert texts[0] == texts[1]
    assert json.loads(texts[0][0])["target_modules"] == ["to_k", "to_q", "to_v"]
    save_and_merge(adapt(tiny("unet"), ATTENTION, seed=4), tmp_path / "other")
    assert (tmp_path / "other" / "adapter_model.safetensors").read_bytes() != texts[0][1]


@pytest.mark.parametrize("name", TINY)
def test_a_layer_that_is_not_there_or_cannot_be_adapted_is_named(name):
    wrong = ATTENTION.model_copy(update={"target_modules": ["to_q", "to_query"]})
    with pytest.raises(UsageError, match=r"target_modules: no layer of .* is called 'to_query'; .*to_out\.0, to_q"):
        adapt(tiny(name), wrong, seed=0)
    with pytest.raises(UsageError, match=r"target_modules to_out: .*ModuleList.* not supported"):
        adapt(tiny(name), ATTENTION.model_copy(update={"target_modules": ["to_out"]}), seed=0)
