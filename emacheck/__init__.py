"""emacheck: is training on this device numerically the training on the reference device?

>>> import emacheck
>>> loss = emacheck.Curve(name="loss", iterations=list(range(1, 11)), values=[4.0 - 0.1 * i for i in range(10)])
>>> record = emacheck.Record(name="cpu", format="example", curves={"loss": loss})
>>> print(emacheck.decide(emacheck.compare(record, record)).outcome)
PASS
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emacheck.audit.findings.result import AuditResult
    from emacheck.audit.step import audit_step
    from emacheck.curve import Curve
    from emacheck.errors import EmacheckError
    from emacheck.judge import Finding, Outcome, Rule, Verdict, decide, make_rules
    from emacheck.judge.comparison import Comparison, compare
    from emacheck.logs import read_log
    from emacheck.record import Record

__version__ = "0.1.0"

_HOME = {
    "AuditResult": "emacheck.audit.findings.result",
    "Comparison": "emacheck.judge.comparison",
    "Curve": "emacheck.curve",
    "EmacheckError": "emacheck.errors",
    "Finding": "emacheck.judge",
    "Outcome": "emacheck.judge",
    "Record": "emacheck.record",
    "Rule": "emacheck.judge",
    "Verdict": "emacheck.judge",
    "audit_step": "emacheck.audit.step",
    "compare": "emacheck.judge.comparison",
    "decide": "emacheck.judge",
    "make_rules": "emacheck.judge",
    "read_log": "emacheck.logs",
}

__all__ = [
    "AuditResult",
    "Comparison",
    "Curve",
    "EmacheckError",
    "Finding",
    "Outcome",
    "Record",
    "Rule",
    "Verdict",
    "audit_step",
    "compare",
    "decide",
    "make_rules",
    "read_log",
]


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that `emacheck --help` does not pay for numpy.
    if name in _HOME:
        try:
            return getattr(import_module(_HOME[name]), name)
        except ModuleNotFoundError as error:
            from emacheck.errors import MissingExtraError

            raise MissingExtraError(
                f"emacheck.{name} needs {error.name}, which is not installed here. Install the extra: "
                "pip install 'emacheck[train]', or use the Python that has the vendor's torch."
            ) from error
    raise AttributeError(f"module 'emacheck' has no attribute {name!r}")


def __dir__() -> list[str]:
    # help(emacheck) asks for all that is listed, also where there is no torch.
    lacking = set() if find_spec("torch") else {"audit_step"}
    return sorted({*globals(), *__all__} - lacking)
