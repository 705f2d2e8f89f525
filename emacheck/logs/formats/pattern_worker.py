"""Search lines with somebody's regular expression, in a process of its own that can be stopped; standard library only.

The first line of standard input is the pattern, as JSON. Then, for each line that holds a JSON list of texts, one line
comes back with a JSON list: for each text in which the pattern is found, its number and the groups.
"""

import json
import re
import signal
import sys

GROUP = "iteration"
# Of computing; longer than anybody waits. If who waited was killed, nobody else ends a search without end.
MOST_SECONDS = 60.0


def main() -> None:
    """Answer until standard input ends."""
    try:
        told = sys.stdin.readline()
        _end_if_endless()
        pattern = re.compile(json.loads(told))
    except (re.error, RecursionError, OverflowError, MemoryError) as error:
        answer(f"is not valid: {error}")
        return
    if len(pattern.groupindex) < 2 or GROUP not in pattern.groupindex:
        answer("has no named group 'iteration' and at least one other that is a metric")
        return
    answer("")
    for line in sys.stdin:
        _end_if_endless()
        found = ((at, pattern.search(text)) for at, text in enumerate(json.loads(line)))
        answer([(at, match.groupdict()) for at, match in found if match is not None])


def answer(value: object) -> None:
    """Write one line of JSON."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def _end_if_endless() -> None:
    """Let the system end this process if its next answer takes too much computing; Windows cannot."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_VIRTUAL, MOST_SECONDS)


if __name__ == "__main__":
    main()
