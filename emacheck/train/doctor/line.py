"""One line of what was looked at."""

from dataclasses import asdict, dataclass
from enum import Enum

REPAIR = (
    "A package or a library of it cannot be imported: install what is named, or the package that asks for it, again "
    "(libGL of cv2: pip install opencv-python-headless)."
)


class Status(str, Enum):
    """How good a line is: an error keeps emacheck from training here, a warning limits it."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing that was looked at.

    Attributes:
        name: What was looked at, such as ``torch``.
        status: How good it is.
        found: What was found.
        advice: What to do about it; empty when nothing has to be done.

    Example:
        >>> Line(name="torch", status=Status.OK, found="2.13.0").to_dict()
        {'name': 'torch', 'status': 'ok', 'found': '2.13.0', 'advice': ''}
    """

    name: str
    status: Status
    found: str
    advice: str = ""

    def to_dict(self) -> dict[str, str]:
        """Return the line as JSON has it."""
        return {**asdict(self), "status": self.status.value}

    @classmethod
    def from_dict(cls, fields: dict[str, str]) -> "Line":
        """Return the line that ``to_dict`` wrote."""
        return cls(name=fields["name"], status=Status(fields["status"]), found=fields["found"], advice=fields["advice"])


def ok(name: str, found: str) -> Line:
    """Return a line about something that is as it should be."""
    return Line(name=name, status=Status.OK, found=found)


def warning(name: str, found: str, advice: str) -> Line:
    """Return a line about something that limits what can be done here."""
    return Line(name=name, status=Status.WARNING, found=found, advice=advice)


def error(name: str, found: str, advice: str) -> Line:
    """Return a line about something that keeps emacheck from training here."""
    return Line(name=name, status=Status.ERROR, found=found, advice=advice)
