"""One iteration with SyncBN and DistributedDataParallel on tccl, each rank with its part of a batch; for torchrun.

Rank 0 prints the worst relative difference of a gradient or buffer to one process on the CPU with the whole batch.
"""

import os
import sys

import torch
import torch.distributed as dist
import torch_sdaa
from torch import nn

rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
torch.set_num_threads(1)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))


def state_after(model, images):
    model(images).square().mean().backward()
    return {name: weight.grad.cpu().double() for name, weight in model.named_parameters()} | {
        name: buffer.cpu().double() for name, buffer in model.named_buffers()
    }


images = torch.randn(8, 3, 12, 12, generator=torch.Generator().manual_seed(1))
torch.sdaa.set_device(rank)
dist.init_process_group("cpu:gloo,sdaa:tccl")
device = torch.device("sdaa", rank)
model = nn.SyncBatchNorm.convert_sync_batchnorm(network()).to(device)
model = nn.parallel.DistributedDataParallel(model, device_ids=[rank])
found = state_after(model, images.chunk(size)[rank].to(device))
word = [f"from rank {rank}"]
dist.broadcast_object_list(word, src=1)
dist.barrier()
expected = state_after(network(), images)
worst = max(
    float((found[f"module.{name}"] - value).norm() / value.norm().clamp_min(1e-12)) for name, value in expected.items()
)
used = torch_sdaa.faults.calls()
if rank == 0:
    sys.stdout.write(f"worst {worst:.3g}\n{word[0]}\nsynchronised {used.get('aten::batch_norm_stats', 0)}\n")
    sys.stdout.write(f"allreduce {used.get('tccl::allreduce', 0)}\n")
dist.destroy_process_group()
