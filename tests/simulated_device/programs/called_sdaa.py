"""Short trainings that are called trainings on sdaa, most of which are not; for the directory that is named.

Each is recorded into a directory of its own; a JSON object with what the worker says of each is printed.
"""

import json
import os
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import mmengine.device
import mmengine.runner.runner
import torch
import torch._dynamo
import torch.nn.functional as F  # noqa: N812
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.registry import DATASETS, MODELS, OPTIM_WRAPPER_CONSTRUCTORS

from emacheck.errors import EmacheckError
from emacheck.train.device.devices import KINDS
from emacheck.train.request import TrainingRequest
from emacheck.train.worker import train

CONFIGURATION = """
default_scope = "mmengine"
model = dict(type="Small", data_preprocessor=dict(type="BaseDataPreprocessor"))
train_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type="DefaultSampler", shuffle=True), dataset=dict(type="Noise")
)
train_cfg = dict(type="IterBasedTrainLoop", max_iters=100)
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.1))
"""
WARNING = "The operator 'aten::isin' is not supported on the SDAA backend and will fall back to run on the CPU."


compiled_calls, marked = [], []


def mark_step():
    record = Path(sys.argv[1], "lazy", "iterations.jsonl")
    marked.append(len(record.read_text().splitlines()))


def counting(graph, _):
    return lambda *inputs: compiled_calls.append(graph) or graph(*inputs)


@torch.compile(backend=counting)
def compiled(value):
    return value + 1


@DATASETS.register_module()
class Noise(torch.utils.data.Dataset):
    def __len__(self):
        return 16

    def __getitem__(self, at):
        return {"inputs": torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(at)), "label": at % 2}


@MODELS.register_module()
class Small(BaseModel):
    def __init__(self, attention="device", data_preprocessor=None):
        super().__init__(data_preprocessor=data_preprocessor)
        self.conv, self.classify = torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(4, 2)
        self.attention = attention

    def forward(self, inputs, label, mode="loss"):
        value = F.relu(self.conv(torch.stack(list(inputs)))).flatten(2)
        if self.attention == "host":
            value = value * value.cpu().softmax(2).to(value.device)
        if self.attention == "compiled":
            value = compiled(value)
        if self.attention == "told":
            warnings.warn(WARNING, stacklevel=1)
        return {"loss": F.cross_entropy(self.classify(value.mean(2)), torch.as_tensor(label, device=value.device))}


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class InFloat32:
    def __init__(self, optim_wrapper_cfg, paramwise_cfg=None):
        pass

    def __call__(self, model):
        return OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))


def said_of(name, *options, precision="fp32", device="sdaa"):
    """Train, and return what the worker refuses; nothing if all is as it was asked to be."""
    directory = Path(sys.argv[1], name)
    directory.mkdir()
    (directory / "small.py").write_text(CONFIGURATION)
    request = TrainingRequest(
        preset=None,
        config=str(directory / "small.py"),
        cfg_options=options,
        device=device,
        precision=precision,
        iterations=3,
        threads=1,
    )
    try:
        train(request, directory)
    except EmacheckError as error:
        return str(error)
    return ""


os.environ |= {"TORCH_SDAA_RUNTIME_AUTOFALLBACK": "1", "TORCH_SDAA_FALLBACK_OPS": ""}
allowed = said_of("allowed")
del os.environ["TORCH_SDAA_RUNTIME_AUTOFALLBACK"]
said = {
    "allowed": allowed,
    "healthy": said_of("healthy"),
    "attention on the host": said_of("attention on the host", "model.attention=host"),
    "told": said_of("told", "model.attention=told"),
    "in bf16": said_of("in bf16", precision="bf16"),
    "a constructor without autocast": said_of(
        "a constructor without autocast", "optim_wrapper.constructor=InFloat32", precision="bf16"
    ),
    "no learning rate": said_of("no learning rate", "optim_wrapper.optimizer.lr=0"),
    "accumulating": said_of("accumulating", "optim_wrapper.accumulative_counts=9"),
    "in a compiled part": said_of("in a compiled part", "model.attention=compiled", precision="bf16", device="cpu"),
    "iterations of the compiled part": len(compiled_calls),
    "compiled": said_of("compiled", "compile.backend=eager", device="cpu"),
}
eager = KINDS["sdaa"]
KINDS["sdaa"] = replace(eager, mark_step="__main__.mark_step")
said["lazy"] = said_of("lazy")
said["marked"] = marked
KINDS["sdaa"] = replace(eager, mark_step="__main__.sdaa_mark_step")
said["lazy without its function"] = said_of("lazy without its function")
KINDS["sdaa"] = eager
torch._dynamo.reset()
torch._dynamo.utils.counters.clear()
torch._dynamo.config.disable = True
said["compiled by nobody"] = said_of("compiled by nobody", "compile.backend=eager", device="cpu")
mmengine.runner.runner.get_device = mmengine.device.get_device = lambda: "cpu"
said["another mmengine"] = said_of("another mmengine")
print(json.dumps(said))
