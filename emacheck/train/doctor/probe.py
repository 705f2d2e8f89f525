"""The process that touches the device: ``python -m emacheck.train.doctor.probe DEVICE FILE STAGE...``.

After each stage it appends one line of JSON to FILE, so that a crash loses the stage that caused it and no other.
"""

import json
import sys
import warnings
from pathlib import Path

from emacheck.train.doctor.stages import STAGES
from emacheck.train.launching.parent import end_with_parent


def main(arguments: list[str]) -> int:
    """Try stages on a device.

    Args:
        arguments: The device, the file for the results, and the names of the stages.

    Returns:
        0 when all stages were tried.
    """
    device, file, *stages = arguments
    end_with_parent()
    warnings.filterwarnings("ignore")
    for stage in stages:
        lines = [line.to_dict() for line in STAGES[stage](device)]
        with Path(file).open("a", encoding="utf-8") as results:
            results.write(json.dumps(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
