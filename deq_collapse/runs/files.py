"""Names of the files that a run leaves, and of what a study gathers from them.

They are named here, and the splits beside them, so that to look at a run imports no training code.
"""

CONFIG, MANIFEST, ENVIRONMENT = "config.yaml", "manifest.json", "environment.json"
"""Written when a run begins."""
HISTORY, CHECKPOINT, PREVIOUS, CHECKSUMS = "history.csv", "last.ckpt", "previous.ckpt", "checksums.json"
"""Written every epoch: the checkpoint after it, the one before that, and SHA-256 sums of both."""
ALONG, CONFUSION, GEOMETRY, RESULT = "along.csv", "confusion.csv", "geometry.npz", "result.json"
"""Written when a run ends; the last of them says that it is finished."""
ALONG_MODULES = "along-modules.csv"
"""Written by ``deq-collapse along --modules``."""
RESULTS = "results.json"
"""Of a study: the records of its finished runs."""
PUBLISHED = "published.csv"
"""Of a study, if somebody gave it one: curves that others published."""
SPLITS = ("train", "validation", "test")
"""What the measures in them are of: the clean training split, the images held out of it if there are any, the
test split."""
