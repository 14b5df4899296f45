"""A study as pages and files: words, sections, tables as csv and LaTeX, and the page that watches it."""
