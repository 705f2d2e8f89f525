"""One iteration of the reference from a shared state, with every call of every module in it."""
