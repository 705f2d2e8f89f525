"""Training: presets, devices, worker, recorder; the only rooms that may import torch, mmengine or mmseg."""
