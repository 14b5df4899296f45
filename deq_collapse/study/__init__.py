"""Grids of runs: which there are, which are missing, and what runs them."""
