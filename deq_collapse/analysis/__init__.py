"""Results of a study's runs: settings, pairs, tests, verdicts, costs. Numbers only; no markup, no figures."""
