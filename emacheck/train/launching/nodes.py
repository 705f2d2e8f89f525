"""The nodes of one training: the first that ends badly tells the others, so that nobody waits for the dead.

torch's launcher ends the processes of its own node alone. Those of the others would wait until --timeout, in the store
or within a device's driver. So the launchers talk through the store at which all processes meet; that of node 0 holds
it. What stands there, under ``emacheck ended``:

=====================  ============================================  ================================================
key                    written by                                    read by
=====================  ============================================  ================================================
``node N is there``    each launcher that calls itself node N: +1    itself: only the first one is node N
``ended``              each node that has ended badly: +1            itself: the first one speaks, and the others not
``first``              the first node that has ended badly: its      all the others, who end and say the same
                       words, as JSON
``node N knows``       node N, when it has read ``first``            the one that wrote ``first``, and holds the store
=====================  ============================================  ================================================

The processes themselves have another part of that store: see ``_tell_each_other`` in :mod:`emacheck.train.ranks`.
"""

import contextlib
import datetime
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from emacheck.train.launching.meeting import Meeting, name_of_node, read_meeting
from emacheck.train.request import REFUSAL_FILE

HEARD_FILE = "elsewhere.txt"
POLL_SECONDS = 0.2
# To reach the store; to hear what another died of before us; and until all have heard what ours died of.
CONNECT_SECONDS, OTHERS_SECONDS, LINGER_SECONDS = 30.0, 3.0, 10.0
# A launcher that ends well has ended when this is over.
LOST_SECONDS = 5.0
FOR_EVER = datetime.timedelta(days=30)


def heard(run_directory: Path) -> str | None:
    """Return how the processes of another node ended, if that ended those of this one."""
    try:
        return (run_directory / HEARD_FILE).read_text(encoding="utf-8")
    except OSError:
        return None


class OtherNodes:
    """What the launcher of one node says to those of the others, and hears of them.

    Args:
        run_directory: The run directory of this node.

    Attributes:
        ended_us: Whether this launcher was told to end because another node has.
        place_is_ours: Whether this node is the first with its number at the meeting; None until it has asked.
    """

    def __init__(self, run_directory: Path) -> None:
        self.ended_us = False
        self.place_is_ours: bool | None = None
        self._directory = run_directory
        self._lock = threading.Lock()
        self._over = False

    def listen(self) -> None:
        """End this launcher, as SIGTERM would, as soon as another node says that it has ended badly, or is gone."""
        threading.Thread(target=self._listen, daemon=True).start()

    def tell_of_rank(self, rank: int, code: int, *, lost_another: bool) -> None:
        """Tell the others how a process ended, unless another node has ended first.

        Args:
            rank: The process, the first to blame on this node.
            code: Its exit code; negative for a signal.
            lost_another: Whether it has only lost its connection to another, of which the launcher there may speak yet.
        """
        from emacheck.exit_code import how_it_ended
        from emacheck.train.launching.last_words import last_words

        meeting = read_meeting(self._directory)
        if meeting is not None:
            words = last_words(self._directory, rank % meeting.nproc_per_node)
            self.tell(f"rank {rank} {how_it_ended(code)}.\n{words}", lost_another=lost_another)

    def tell(self, said: str, *, lost_another: bool = False) -> None:
        """Tell the others how this node ended, or what it has refused, unless another node has ended first."""
        with self._lock:
            self._over = True
        meeting = read_meeting(self._directory)
        if meeting is None or self.ended_us:
            return
        with contextlib.suppress(RuntimeError):
            store = _store(meeting)
            if not self._took_place(store, meeting):
                return
            if lost_another:
                with contextlib.suppress(RuntimeError):
                    store.wait(["first"], datetime.timedelta(seconds=OTHERS_SECONDS))
            if store.add("ended", 1) == 1:
                mine = {"node": meeting.node, "name": name_of_node(meeting.node), "said": said}
                store.set("first", json.dumps({**mine, "refused": self._refused()}))
            elif (first := json.loads(store.get("first")))["node"] != meeting.node:
                self._note(first)
            store.set(f"node {meeting.node} knows", "")
            # The store ends with the launcher of node 0.
            everybody = [f"node {node} knows" for node in range(meeting.nodes)]
            store.wait(everybody, datetime.timedelta(seconds=LINGER_SECONDS))

    def finished(self) -> None:
        """Hear nothing any more: the processes of this node have ended."""
        with self._lock:
            self._over = True

    def _listen(self) -> None:
        while (meeting := read_meeting(self._directory)) is None:
            time.sleep(POLL_SECONDS)
        try:
            store = _store(meeting)
            if self._took_place(store, meeting):
                store.wait(["first"], FOR_EVER)
                first = json.loads(store.get("first"))
                store.set(f"node {meeting.node} knows", "")
            else:
                first = {"name": None, "said": None, "refused": _not_ours(meeting)}
        except RuntimeError:
            time.sleep(LOST_SECONDS)
            place = f"{meeting.host}:{meeting.port}"
            gone = f"the launcher of node 0, at {place}, is gone; what the command there says is why."
            first = {"name": "node 0", "said": gone, "refused": None}
        with self._lock:
            if self._over:
                return
            self.ended_us = self._over = True
            self._note(first)
            os.kill(os.getpid(), signal.SIGTERM)

    def _took_place(self, store: Any, meeting: Meeting) -> bool:
        """Take the place of this node, once; false if a node of another training, with the same address, has it."""
        with self._lock:
            if self.place_is_ours is None:
                self.place_is_ours = store.add(f"node {meeting.node} is there", 1) == 1
            return self.place_is_ours

    def _note(self, first: dict[str, Any]) -> None:
        name = REFUSAL_FILE if first["refused"] else HEARD_FILE
        # What was refused here already was refused together.
        with contextlib.suppress(OSError), (self._directory / name).open("x", encoding="utf-8") as file:
            where = "" if first["name"] is None else f"on {first['name']}: "
            file.write(f"{where}{first['refused'] or first['said']}\n")

    def _refused(self) -> str | None:
        try:
            return (self._directory / REFUSAL_FILE).read_text(encoding="utf-8").strip()
        except OSError:
            return None


def _not_ours(meeting: Meeting) -> str:
    return (
        f"found a node {meeting.node} at {meeting.host}:{meeting.port} already: another training meets there. Give "
        "each training a port of its own: --master-port PORT, the same on all of its nodes."
    )


def _store(meeting: Meeting) -> Any:
    """Return a connection of our own to the store at which the processes meet."""
    import torch.distributed

    patience = datetime.timedelta(seconds=CONNECT_SECONDS)
    # Documented, but not exported in the sense of torch's own type hints.
    distributed: Any = torch.distributed
    store = distributed.TCPStore(meeting.host, meeting.port, is_master=False, timeout=patience, wait_for_workers=False)
    return distributed.PrefixStore("emacheck ended", store)
