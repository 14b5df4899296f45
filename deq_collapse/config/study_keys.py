"""The keys of a study file; here, because a run refuses a study file that is given as its configuration."""

BASE = "base"
GRID_KEYS = ("config", "axes", "override", "seeds")
KEYS = ("name", BASE, "output", *GRID_KEYS, "grids", "contrasts")
OF_STUDIES = frozenset(KEYS) - {"name", "axes"}
"""Those that a run's configuration does not have."""
