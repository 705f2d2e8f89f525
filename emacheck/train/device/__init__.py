"""Devices: what each is called, how it is seeded and synchronised, and what mmengine lacks for it."""
