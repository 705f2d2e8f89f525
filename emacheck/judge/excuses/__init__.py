"""What else than a wrong device explains a FAIL, which is then INCONCLUSIVE: one excuse a module."""
