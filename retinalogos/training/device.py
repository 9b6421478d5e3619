"""Where and in which precision to compute."""

import os

import torch

from retinalogos.training.configuration import Precision


def device() -> torch.device:
    """The accelerator where there is one, else the CPU; of several, that of this process as `torchrun` counts them."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("cpu")


def reason_not_to_compile() -> str | None:
    """Why ``torch.compile`` does not run here; ``None`` where it does. On a CPU it needs a C++ compiler."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(8))
    # An unfit compiler shows in many ways, according to where in torch it is met first.
    except Exception as error:
        return str(error).strip().splitlines()[0]
    return None


def compute_dtype(precision: Precision, where: torch.device) -> torch.dtype:
    """Resolves ``auto``: bfloat16 where the device multiplies it natively (CUDA, or a CPU with AMX or AVX-512 BF16).

    Elsewhere it is float32: a CPU without those units is several times slower in bfloat16.
    """
    if precision == "auto":
        native = where.type == "cuda" or torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if native else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
