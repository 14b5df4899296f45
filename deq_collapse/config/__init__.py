"""From a configuration to a run: its files, Lightning's command line for it, and what is wrong with one."""
