"""Data: a synthetic Cityscapes, and the check of any Cityscapes; no torch."""
