"""How far tensors are apart, and what precision is accepted."""
