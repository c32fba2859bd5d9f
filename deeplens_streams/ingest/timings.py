"""How long accepting an image may take: all of it, and each wait within."""

from dataclasses import dataclass

from deeplens_streams.broker.faust_transport import TAKEN_OVER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Seconds; tests shorten them."""

    accept_s: float = 120.0
    """For all of one upload, from its checked bytes on, whatever it waits for."""
    store_s: float = 60.0
    """For its writes to storage, together."""
    pending_s: float = 12.0
    """Until the upload that has a pending claim is taken for dead: writing its metadata object and
    its event takes less."""
    long_ago_s: float = 60.0
    """The same by the clock of whoever wrote the claim: so long that clocks do not matter."""
    row_s: float = TAKEN_OVER_S
    """For the row of the image that has the bytes, which may be changing hands."""
    undo_s: float = 3.0
    """For which the answer waits for the removal of what was refused; it goes on behind."""
    close_s: float = 3.0
    """For what goes on behind answers, when the process ends."""
