"""Faults and benign variations through every rule, counted."""
