"""Refinement: constraints that hold at the vertices of the gates close what LipSDP leaves open.

A network's increment is affine in the secant slope of each gate, and a norm is convex: so the
greatest norm is reached with every slope at an end, and a quadratic constraint need only hold
there. `vertices` seeks that greatest norm from below: bound over it says whether refinement can
pay. `cuts` are such constraints for pairs of gates, found from a solution's moments; sorted groups
have full blocks. `assembly` states one row's inequality, `terms` and `solver` solve it, `rounds`
repeat that with more cuts, `tier` turns every round into a candidate.

Valid because networks are graphs without cycles: each gate's slope enters every path once.
"""

from verifier.methods.refinement.tier import candidates, vertex_maximum

__all__ = ["candidates", "vertex_maximum"]
