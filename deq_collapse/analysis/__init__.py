"""What the runs of a study say: settings, pairs, tests, verdicts, costs. Numbers; no markup, no figure."""
