"""``deq-collapse theory``: predictions of layer-peeled models, and the distances of trained networks from
them.
"""
