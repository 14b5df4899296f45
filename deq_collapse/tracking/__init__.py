"""Runs and studies on Weights & Biases; wandb is imported only where it is used."""

PROJECT = "deq-collapse"
"""On wandb, where no other is given."""
