"""The one training loop and what it stands on: configuration, EMA, checkpoints."""
