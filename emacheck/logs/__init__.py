"""Readers: one module per log format, chosen by content; no torch."""

from emacheck.logs.reading import read_log

__all__ = ["read_log"]
