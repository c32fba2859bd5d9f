"""A worker whose audit allows clocks no difference: ``python -m tests.hasty_audit worker``.

An audit judges what moved more than two minutes before all was read; a test would wait for them.
"""

from deeplens_streams.audit import settled
from deeplens_streams.cli.main import main

if __name__ == "__main__":
    settled.GRACE_S = 0.0
    main()
