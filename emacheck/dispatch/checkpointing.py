"""What ``torch.utils.checkpoint.checkpoint`` runs below its own name, which models import."""

import torch.utils.checkpoint as torch_checkpoint

REENTRANT = "CheckpointFunction"
_GENERATOR = "_checkpoint_without_reentrant_generator"
# From torch 2.14 on the first one, which is called by nobody in torch, calls the second.
NOT_REENTRANT = _GENERATOR + ("_impl" if hasattr(torch_checkpoint, f"{_GENERATOR}_impl") else "")
