"""Names of the files of a run, and of those that a study gathers from them.

They are here, together with the splits, so that reading a run imports no training code.
"""

CONFIG, MANIFEST, ENVIRONMENT = "config.yaml", "manifest.json", "environment.json"
"""Written when a run starts."""
HISTORY, CHECKPOINT, PREVIOUS, CHECKSUMS = "history.csv", "last.ckpt", "previous.ckpt", "checksums.json"
"""Written every epoch: the history, the checkpoint after it, the previous one, and SHA-256 sums of both."""
ALONG, CONFUSION, GEOMETRY, RESULT = "along.csv", "confusion.csv", "geometry.npz", "result.json"
"""Written when a run ends; the last of them marks it as finished."""
ALONG_MODULES = "along-modules.csv"
"""Written by ``deq-collapse along --modules``."""
THEORY, THEORY_GRAMS = "theory.csv", "theory.npz"
"""Written by ``deq-collapse theory compare``."""
RESULTS = "results.json"
"""In a study: the records of its finished runs."""
PUBLISHED = "published.csv"
"""In a study, if provided: curves published by others."""
SPLITS = ("train", "validation", "test")
"""The splits of the measures: the clean training split, the images held out of it if any, the test split."""
