"""Grids of runs: what they contain, what is missing, and what runs them."""
