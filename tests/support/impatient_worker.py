"""A worker that waits for nothing but work: ``python -m tests.support.impatient_worker worker``.

An audit judges what moved more than two minutes before all was read, and what was deleted long ago
is looked for after five; a test would wait for them.
"""

from deeplens_streams.audit import settled
from deeplens_streams.cli.main import main
from deeplens_streams.deletion.ageing import Ageing, Timings

if __name__ == "__main__":
    settled.GRACE_S = 0.0
    Ageing.__init__.__defaults__ = (Timings(first=1.0, apart=1.0),)
    main()
