"""Grids of runs, and what is read, drawn and written from them."""
