"""Layer-peeled programs and closed forms of neural collapse, without data; docs/theory.md derives them."""
