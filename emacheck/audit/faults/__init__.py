"""Faults: realistic defects of a port, each a small function that breaks a candidate, to prove what the audit finds.

A fault of one's own is a function in any Python file, for ``emacheck selftest --faults FILE.py``:

    from emacheck.audit.faults import fault

    @fault(kind="norm", severities=(2.0, 100.0), unit="times the epsilon")
    def epsilon_of_the_last_norm(candidate, severity):
        "The last normalisation uses another epsilon."
        norm = candidate.model.head.norm
        norm.eps *= severity
        return "head.norm"          # the module it sits in, or None
"""

from emacheck.audit.faults.loading import catalogue, load_faults
from emacheck.audit.faults.registry import CATALOGUE, Fault, NotApplicableError, fault, finer_than

__all__ = ["CATALOGUE", "Fault", "NotApplicableError", "catalogue", "fault", "finer_than", "load_faults"]
