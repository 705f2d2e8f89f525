"""What the options say of the processes that train."""

from typing import NamedTuple


class Given(NamedTuple):
    """What the options say; None where they say nothing."""

    nproc: int
    nnodes: int | None
    node_rank: int | None
    addr: str | None
    port: int | None
    endpoint: str | None
    job: str | None
