"""All figures: one file each, made from runs and numbers, independent of pages and studies."""
