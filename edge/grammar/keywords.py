"""What each keyword of JSON Schema demands, and what its opposite demands, as branches.

Each keyword has a function from the node to branches of which a value satisfies at least one. What a branch cannot
hold exactly it lists as late: then the branches allow more, never less, and the check of the finished text decides.
Keywords that are not in the tables are annotations, as JSON Schema has it.
"""

from __future__ import annotations

from edge.grammar import keywords_arrays, keywords_combined, keywords_objects, keywords_scalars
from edge.grammar.node import Reader

_SUBJECTS = (keywords_scalars, keywords_arrays, keywords_objects, keywords_combined)
READERS: dict[str, Reader] = {keyword: read for each in _SUBJECTS for keyword, read in each.READERS.items()}
OPPOSITES: dict[str, Reader] = {
    keyword: read for each in _SUBJECTS for keyword, read in each.OPPOSITES.items()
}
