"""Runs and studies on Weights & Biases; wandb is imported only where it is used."""

PROJECT = "deq-collapse"
"""Default project on wandb."""
