"""Training: presets, devices, worker, recorder; beside `audit` and `dispatch` the only room that imports torch."""
