"""Which page of a list is asked for, read once from a query."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from deeplens_streams.web.forms.fields import whole_number

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 200


@dataclass(frozen=True, slots=True)
class PageQuery:
    """One page.

    Attributes
    ----------
    limit : entries of the page, at the most.
    cursor : what the page before it answered as ``nextCursor``; None for the first.
    """

    limit: int
    cursor: str | None

    @classmethod
    def read(cls, query: Mapping[str, str]) -> Self:
        """Check what a query says; an empty cursor is none.

        Raises
        ------
        BadRequest
            The limit is no whole number from 1 to `MAX_LIMIT`.
        """
        limit = whole_number(
            query.get("limit"), "limit", default=DEFAULT_LIMIT, low=1, high=MAX_LIMIT
        )
        return cls(limit, query.get("cursor") or None)
