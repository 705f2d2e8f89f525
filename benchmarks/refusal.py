"""What `emacheck run` says to an experiment that is not the stored reference's."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "refusal.json"
OPTIONS = ["--cfg-options", "optim_wrapper.optimizer.momentum=0.8"]


def main() -> None:
    """Run the command and write its exit code and message."""
    program = str(Path(sys.executable).parent / "emacheck")
    with tempfile.TemporaryDirectory() as place:
        done = subprocess.run([program, "run", *OPTIONS], cwd=place, capture_output=True, text=True, check=False)
    message = done.stderr.partition("emacheck: ")[2].strip().splitlines()
    result = {"command": " ".join(["emacheck", "run", *OPTIONS]), "exit code": done.returncode, "message": message}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
