"""Circuit breakers: one for each dependency of a process, shared by all who use it.

While a dependency is away, those who need it are told so at once instead of each finding out,
and one call at a time, later and later, finds out whether it is back.

A call may also fail because of what it asks for: a file with a disk error, a damaged collection.
Where an error does not tell, the dependency is pinged: if it answers, its breaker stays closed,
and the failure is that one caller's.
"""

from deeplens_streams.circuit_breaker.breaker import (
    TRIES,
    Breaker,
    BreakerState,
    CircuitOpen,
    was_refused,
)
from deeplens_streams.circuit_breaker.breakers import REMIND_S, Breakers

__all__ = [
    "REMIND_S",
    "TRIES",
    "Breaker",
    "BreakerState",
    "Breakers",
    "CircuitOpen",
    "was_refused",
]
