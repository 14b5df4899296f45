"""From a configuration to a run: its files, Lightning's command line, and errors in configurations."""
