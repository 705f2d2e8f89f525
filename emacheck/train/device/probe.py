"""A process of its own that opens a device or finds one: ``python -m emacheck.train.device.probe OPTION [NAME N]``."""

import sys

from emacheck.errors import EmacheckError
from emacheck.train.device.accelerator import detect, open_device
from emacheck.train.device.devices import MARK, REFUSED, parse_device
from emacheck.train.launching.parent import end_with_starter


def main(arguments: list[str]) -> int:
    """Open the device named, if there are as many as asked for; print the type of torch's accelerator if none is."""
    end_with_starter()
    try:
        option, *named = arguments
        if named:
            name, count = named
            open_device(parse_device(name, option), int(count))
        else:
            print(detect(option))  # noqa: T201 - the answer to --device auto
    except EmacheckError as error:
        print(f"{MARK}{error}", file=sys.stderr)  # noqa: T201 - the command shows it
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
