"""The audit: one iteration from a shared state, tensor by tensor, against float64 on the CPU; for any torch module."""
