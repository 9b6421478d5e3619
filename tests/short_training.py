"""Settings of a training run of a few steps; tests change what they are about with ``model_copy(update=…)``."""

from retinalogos.generators.text.configuration import FlowConfig
from retinalogos.training.configuration import TrainingConfig

TRAINING = TrainingConfig(
    steps=4, batch_size=8, pieces=2, learning_rate=1e-3, warmup_steps=0, weight_decay=0.01, beta2=0.99,
    gradient_clip=1.0, ema_decay=0.9, snapshot_every=0, sharded=False, checkpoint_activations=False,
    compile_blocks=False, precision="float32", checkpoint_every=10, log_every=1, validate_every=4, sample_every=4,
)  # fmt: skip
FLOW = FlowConfig(
    timestep_law="logit_normal", timestep_shift=1.0, caption_dropout=0.1, coarse_share=0.5, loss_weighting="uniform",
    alignment_weight=0.0,
)  # fmt: skip
