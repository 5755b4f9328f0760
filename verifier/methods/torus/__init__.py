"""Convolutional networks: scales shared by channels, frequency by frequency.

The increments that enter a layer have a covariance bound J, z z* <= J |dx|^2 (`recursion`). With
scales shared by all places of a channel, and every tensor embedded in a torus, J is a block
circulant: one small matrix for each frequency, whatever the size of the image.

One file, one idea: `taps` and `terms` read flat linear maps as convolutions, `structure` finds the
tensors, the masks that zero padding needs and where the torus ends, `plan` the order, `frequencies`
the half that counts and how strides fold it, `leaving` and `recursion` the pass, `starts` scales
without search, `search` and `descent` the best ones, `bounds` what is asked of the result.

Rules of the embedding: CERTIFICATE.md, kind `torus`.
"""

from verifier.methods.torus.candidate import applies, candidates

__all__ = ["applies", "candidates"]
