"""What to cite for a run: the references, and which class, option or measure rests on which of them."""
