"""Start processes that train, watch them, end them, and say what became of them; no torch."""
