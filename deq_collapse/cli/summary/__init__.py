"""``deq-collapse summary``: the costs of models, without training."""
