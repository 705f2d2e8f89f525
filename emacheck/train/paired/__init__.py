"""What must be equal on every device: draws, dropout masks and batches, proven by fingerprints."""
