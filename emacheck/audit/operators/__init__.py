"""Operators: which ATen operator of a device is wrong, on what inputs, and whether it is the cause."""
