"""Everything that is drawn: one file per figure, made from runs and numbers, knowing no page and no study."""
