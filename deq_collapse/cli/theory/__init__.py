"""``deq-collapse theory``: what layer-peeled models predict, and how far trained networks are from it."""
