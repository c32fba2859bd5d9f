"""Scores and their order, the same of every engine.

An engine's score is right to half a millionth: a vector's with itself was 0.9999995 to 1.0000003,
and what a threshold drops at equality, or how equal scores are ordered, is each one's own. So
scores are rounded here, compared here, and ordered here.
"""

from collections.abc import Awaitable, Callable, Iterable

from deeplens_streams.vectors.base import Hit

#: Digits behind the point.
DIGITS = 6

#: What is nearer to 1 is a vector's score with itself.
_NEAR = 1e-6
#: How far below a threshold an engine is asked, so that none is missed that is rounded up to it.
_BELOW = 2e-6
#: How many more than the limit are looked at where scores at the limit are equal.
_MAX_EQUAL = 1000

#: Returns up to so many hits that an engine finds, in any order.
Ask = Callable[[int], Awaitable[list[Hit]]]


def rounded(score: float) -> float:
    """Return a cosine as it is shown, -1 to 1; never a negative zero."""
    if score > 1 - _NEAR:
        return 1.0
    return max(-1.0, round(score, DIGITS)) + 0.0


def lowest(threshold: float) -> float | None:
    """Return the score above which an engine has to look, or None for all there are."""
    return threshold - _BELOW if threshold - _BELOW > -1 else None


def ranked(hits: Iterable[Hit], *, threshold: float) -> list[Hit]:
    """Return those of at least `threshold`, best first, equal ones in the order of their IDs."""
    counting = (hit for hit in hits if hit.score >= threshold)
    return sorted(counting, key=lambda hit: (-hit.score, hit.image_id))


async def best(ask: Ask, *, limit: int, threshold: float) -> list[Hit]:
    """Return the best `limit` hits of at least `threshold`, in the order of `ranked`.

    An engine that is asked for a few of many that are equal returns any of them. So it is asked for
    more until all that equal the last are there; of more than a thousand those that it chooses.
    """
    asked = limit + 1
    while True:
        found = await ask(asked)
        hits = ranked(found, threshold=threshold)
        is_all = len(found) < asked or asked == limit + _MAX_EQUAL
        if is_all or len(hits) < len(found) or hits[-1].score < hits[limit - 1].score:
            return hits[:limit]
        asked = min(asked * 4, limit + _MAX_EQUAL)
