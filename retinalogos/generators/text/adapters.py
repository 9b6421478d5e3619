"""Low-rank adapters of a backbone (LoRA, Hu et al., arXiv 2106.09685), by peft.

The backbone's own weights stay as they are; beside each chosen layer a product of two thin matrices is trained. At the
end it is added to the layer's weights, and the network is of the class and the shapes that it was before.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from retinalogos.errors import UsageError
from retinalogos.generators.text.configuration import AdapterConfig

if TYPE_CHECKING:
    from peft import PeftModel


def adapt(backbone: ModelMixin, config: AdapterConfig, seed: int) -> "PeftModel":
    """Puts new adapters into a backbone, in place; from then on nothing else of it has a gradient.

    They start at zero: the backbone predicts what it did before.

    Args:
        backbone: a network of :func:`build_backbone` or :func:`load_backbone`.
        config: rank, scale and layers; the rank is at least 1.
        seed: of the adapters' random weights.

    Raises:
        UsageError: a target is no layer of the backbone, or of a kind that cannot be adapted.
    """
    from peft import LoraConfig, get_peft_model

    layers = dict(backbone.named_modules())
    for target in config.target_modules:
        if not any(name == target or name.endswith(f".{target}") for name in layers):
            linear = {_short(name) for name, layer in layers.items() if isinstance(layer, nn.Linear)}
            raise UsageError(
                f"lora.target_modules: no layer of {type(backbone).__name__} is called {target!r}; "
                f"its linear layers are {', '.join(sorted(linear))}"
            )
    settings = LoraConfig(
        r=config.rank,
        lora_alpha=config.rank if config.alpha is None else config.alpha,
        # No dropout: it draws from the global generator, and a run that was killed would not end as one that was not.
        lora_dropout=0.0,
    )
    # peft makes a set of a list that it is given, and writes that in an order that differs from run to run.
    settings.target_modules = sorted(set(config.target_modules))
    torch.manual_seed(seed)
    try:
        return get_peft_model(backbone, settings)
    except ValueError as error:
        # peft prints the layer, over several lines where it has parts.
        reason = " ".join(str(error).split())
        raise UsageError(f"lora.target_modules {', '.join(config.target_modules)}: {reason}") from None


def save_and_merge(adapted: "PeftModel", folder: Path) -> None:
    """Writes the adapters in peft's layout, then adds them to the backbone's weights, in place.

    ``PeftModel.from_pretrained(backbone, folder)`` gives the same network from the backbone that was adapted.
    """
    adapted.save_pretrained(str(folder))
    # A model card with every field left blank.
    (folder / "README.md").unlink()
    adapted.merge_and_unload()


def _short(name: str) -> str:
    """Last part of a layer's name, with the one before where it is only a number: ``to_q``, ``to_out.0``."""
    *outer, last = name.split(".")
    return f"{outer[-1]}.{last}" if last.isdigit() and outer else last
