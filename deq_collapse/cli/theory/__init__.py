"""``deq-collapse theory``: predictions of layer-peeled models, and how far networks are from them."""
