"""Search lines with somebody's regular expression, in a process of its own that can be stopped; standard library only.

The first line of standard input is the pattern, as JSON. Then, for each line that holds a JSON list of texts, one line
comes back with a JSON list: for each text in which the pattern is found, its number and the groups.
"""

import json
import re
import sys

GROUP = "iteration"


def main() -> None:
    """Answer until standard input ends."""
    try:
        pattern = re.compile(json.loads(sys.stdin.readline()))
    except (re.error, RecursionError, OverflowError, MemoryError) as error:
        answer(f"is not valid: {error}")
        return
    if len(pattern.groupindex) < 2 or GROUP not in pattern.groupindex:
        answer("has no named group 'iteration' and at least one other that is a metric")
        return
    answer("")
    for line in sys.stdin:
        found = ((at, pattern.search(text)) for at, text in enumerate(json.loads(line)))
        answer([(at, match.groupdict()) for at, match in found if match is not None])


def answer(value: object) -> None:
    """Write one line of JSON."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
