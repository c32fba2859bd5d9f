"""The version of all that lies between a file and what a model looks at.

Vectors of two versions can be compared, but one picture need not be its own first hit. So the
version stands beside what was made, and an audit finds what an older one made.
"""

from typing import Final

#: Grows by one in each release that makes other pixels of some file than the one before, or tells
#: another size of it. What was made before there was a number is of `BEFORE`.
PREPROCESSING: Final = 1
BEFORE: Final = 0


def version_of(told: object) -> int:
    """Return a version as a record or a payload tells it; `BEFORE` if that is no version."""
    return told if isinstance(told, int) and not isinstance(told, bool) else BEFORE
