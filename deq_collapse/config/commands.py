"""The Lightning commands that take a configuration; nothing heavy is imported here, to keep `--help` fast."""

COMMANDS = {
    "fit": "train one run and measure its collapse",
    "validate": "measure the clean training split and the test split from a checkpoint",
    "test": "measure the test split from a checkpoint",
    "predict": "write a checkpoint's predictions for the test split",
}
"""The description of each command."""
