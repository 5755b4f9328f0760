"""The activations: each states a few facts, and `piecewise` derives the rest."""
