"""Branch and bound on its way: what can be stored, cut into chunks, joined, and continued.

    search  -->  Growth  -->  Checkpoint.to_bytes  ...  read_checkpoint  -->  Growth  -->  search
                 Growth  -->  cut  -->  a search for each  -->  join  -->  Growth

A checkpoint proves nothing and is not trusted: bounds of a search that starts from it are claims
that the checker decides about, as all others. Knows no network and no search; numpy alone.
"""

from verifier.checkpoint.archive import MOST_BYTES, Checkpoint, read_checkpoint
from verifier.checkpoint.chunks import cut, join
from verifier.checkpoint.growth import ELSEWHERE, Growth, Node, Root, Row, Split, Trim, unusable

__all__ = [
    "ELSEWHERE",
    "MOST_BYTES",
    "Checkpoint",
    "Growth",
    "Node",
    "Root",
    "Row",
    "Split",
    "Trim",
    "cut",
    "join",
    "read_checkpoint",
    "unusable",
]
