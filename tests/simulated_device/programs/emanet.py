"""Train mmsegmentation's EMANet-R50-D8 a few iterations on the CPU, then on sdaa; print both as JSON.

Usage: emanet.py ITERATIONS THREADS
"""

import hashlib
import json
import logging
import sys
from importlib.util import find_spec
from pathlib import Path

import torch
import torch_sdaa
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import register_all_modules

SIZE = (32, 64)


def model_config():
    path = Path(find_spec("mmseg").origin).parent / ".mim/configs/emanet/emanet_r50-d8_4xb2-80k_cityscapes-512x1024.py"
    config = Config.fromfile(str(path)).model
    config.pretrained = None
    config.data_preprocessor.size = SIZE
    for part in (config.backbone, config.decode_head, config.auxiliary_head):
        part.norm_cfg = {"type": "BN", "requires_grad": True}
    return config


def batch(iteration):
    generator = torch.Generator().manual_seed(iteration)
    images = torch.randn(2, 3, *SIZE, generator=generator)
    labels = torch.randint(0, 19, (2, 1, *SIZE), generator=generator)
    return images, labels


def digest(tensors):
    seen = hashlib.sha256()
    for tensor in tensors:
        seen.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return seen.hexdigest()


def train(device, iterations):
    torch.manual_seed(0)
    model = MODELS.build(model_config())
    model.init_weights()
    model.train().to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    records = []
    for iteration in range(1, iterations + 1):
        images, labels = batch(iteration)
        samples = [
            SegDataSample(gt_sem_seg=PixelData(data=label), metainfo={"img_shape": SIZE}) for label in labels.to(device)
        ]
        losses = model.loss(images.to(device), samples)
        loss = sum(value for name, value in losses.items() if "loss" in name)
        optimizer.zero_grad()
        loss.backward()
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        optimizer.step()
        records.append(
            {"loss": loss.item(), "gradients": digest(gradients), "state": digest(model.state_dict().values())}
        )
    return records


# A device's backward pass runs in a thread of its own, which learns the number when it starts.
torch.set_num_threads(int(sys.argv[2]))
logging.disable(logging.CRITICAL)
register_all_modules()
both = {device: train(device, int(sys.argv[1])) for device in ("cpu", "sdaa")}
sys.stdout.write(f"\n{json.dumps({**both, 'operators': len(torch_sdaa.faults.calls())})}\n")
