"""torch's dispatcher: let a CPU round where accelerators do, and see which operators ran and where."""
