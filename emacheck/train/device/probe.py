"""A process of its own that asks for devices: ``python -m emacheck.train.device.probe OPTION [NAME [N]]``."""

import sys

from emacheck.errors import EmacheckError
from emacheck.train.device.accelerator import detect, open_device
from emacheck.train.device.devices import MARK, REFUSED, description, parse_device
from emacheck.train.launching.parent import end_with_starter
from emacheck.train.launching.program import leave_with


def main(arguments: list[str]) -> int:
    """Open N devices of a name, print what the entry point of a name describes, or print torch's accelerator."""
    end_with_starter()
    try:
        option, *named = arguments
        if len(named) == 1:
            # What the vendor's module printed may lack the end of its line.
            print(f"\n{description(named[0], option)}")  # noqa: T201 - the answer
        elif named:
            name, count = named
            open_device(parse_device(name, option), int(count))
        else:
            print(detect(option))  # noqa: T201 - the answer to --device auto
    except EmacheckError as error:
        print(f"{MARK}{error}", file=sys.stderr)  # noqa: T201 - the command shows it
        return REFUSED
    return 0


if __name__ == "__main__":
    # What a vendor's module does at exit, such as crash, says nothing about what was found.
    leave_with(main)
