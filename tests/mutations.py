"""Numbers of a proof, whatever its kind, changed one at a time.

Proofs are trees of dataclasses, mappings, tuples, arrays and numbers: one walk finds every number
and every array, and rebuilds the tree with one of them changed. A new kind of proof needs no word
here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Numbers: TypeAlias = npt.NDArray[np.float64]
Change: TypeAlias = Callable[[Numbers], Numbers]
Tree: TypeAlias = Any  # a proof, or any part of one


def _first(value: float) -> Change:
    """The first entry becomes this."""

    def change(numbers: Numbers) -> Numbers:
        changed = numbers.copy()
        changed.flat[:1] = value  # an array may be empty
        return changed

    return change


def _whole(value: float) -> Change:
    return lambda numbers: np.full_like(numbers, value)


CHANGES: Mapping[str, Change] = {
    "a little less": lambda numbers: numbers * (1 - 1e-12),
    "half": lambda numbers: numbers / 2,
    "ten times": lambda numbers: numbers * 10,
    "negated": lambda numbers: -numbers,
    "reversed": lambda numbers: numbers[::-1].copy(),
    "turned by one": lambda numbers: np.roll(numbers, 1),
    "zero": _whole(0.0),
    "one": _whole(1.0),
    "first zero": _first(0.0),
    "first nan": _first(math.nan),
    "nan": _whole(math.nan),
    "infinite": _whole(math.inf),
    "first 1e308": _first(1e308),
    "1e308": _whole(1e308),
    "least": _whole(5e-324),
    "empty": lambda numbers: numbers[:0],
    "one more": lambda numbers: np.append(numbers, numbers[:1]),
}


def mutants(tree: Tree, change: Change) -> Iterator[Tree]:
    """The tree with the change made to one of its arrays or numbers, for each that it alters."""
    if isinstance(tree, np.ndarray):
        yield from _array(tree, change)
    elif isinstance(tree, bool | str | None):
        return
    elif isinstance(tree, int | float):
        yield from _number(tree, change)
    else:
        for part, rebuilt in _parts(tree):
            yield from (rebuilt(mutant) for mutant in mutants(part, change))


def _parts(tree: Tree) -> Iterator[tuple[Tree, Callable[[Tree], Tree]]]:
    """Every part, and the tree with another one in its place."""
    if isinstance(tree, Mapping):
        yield from ((part, partial(_with_entry, tree, key)) for key, part in tree.items())
    elif isinstance(tree, tuple):
        yield from ((part, partial(_with_place, tree, k)) for k, part in enumerate(tree))
    else:
        names = (member.name for member in fields(tree))
        yield from ((getattr(tree, name), partial(_with_member, tree, name)) for name in names)


def _with_entry(tree: Mapping[str, Tree], key: str, part: Tree) -> Tree:
    return {**tree, key: part}


def _with_place(tree: tuple[Tree, ...], k: int, part: Tree) -> Tree:
    return (*tree[:k], part, *tree[k + 1 :])


def _with_member(tree: Tree, name: str, part: Tree) -> Tree:
    return replace(tree, **{name: part})


def _array(numbers: Numbers, change: Change) -> Iterator[Numbers]:
    changed = change(numbers)
    if changed.shape != numbers.shape or not np.array_equal(changed, numbers):
        yield changed


def _number(number: float, change: Change) -> Iterator[float]:
    """Changed as an array of one; a whole number stays whole."""
    changed = change(np.array([float(number)]))
    if len(changed) != 1:
        return
    (value,) = changed.tolist()
    if isinstance(number, int):
        if math.isfinite(value) and int(value) != number:
            yield int(value)
    elif value != number:
        yield value
