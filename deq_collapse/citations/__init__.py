"""What to cite for a run: the references, and which class, option or measure is based on which of them."""
