"""The commands of Lightning that a configuration is for; nothing heavy is imported here, for `--help`."""

COMMANDS = {
    "fit": "train one run and measure its collapse",
    "validate": "measure the clean training split and the test split from a checkpoint",
    "test": "measure the test split from a checkpoint",
    "predict": "write a checkpoint's predictions for the test split",
}
"""What each does."""
