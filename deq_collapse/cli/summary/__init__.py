"""``deq-collapse summary``: what models cost, without training."""
