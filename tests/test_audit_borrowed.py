"""Callers that use the weights of the modules that they call: on a device they pass, and their own faults are found."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from torch import nn  # noqa: E402


class Tied(nn.Module):
    """Uses the weight of its embedding once more, and asks a weight for its device."""

    def __init__(self):
        super().__init__()
        self.embedding, self.linear = nn.Embedding(20, 16), nn.Linear(16, 16)

    def forward(self, tokens):
        x = self.embedding(tokens) + torch.arange(8, device=next(self.parameters()).device)[:, None] / 8
        return F.linear(x + self.linear(x).tanh(), self.embedding.weight)


class TwoNames(nn.Module):
    """Has one weight under two names, and uses both."""

    def __init__(self):
        super().__init__()
        self.embedding, self.linear, self.head = nn.Embedding(20, 16), nn.Linear(16, 16), nn.Linear(16, 20, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        x = F.embedding(tokens, self.embedding.weight)
        return F.linear(x + self.linear(x).tanh(), self.head.weight)


class Prototypes(nn.Module):
    """Its loss calls a method that uses a weight of its own."""

    def __init__(self):
        super().__init__()
        self.embedding, self.prototypes = nn.Embedding(20, 16), nn.Parameter(torch.randn(20, 16))

    def forward(self, tokens):
        return self.embedding(tokens)

    def scores(self, features):
        return features @ self.prototypes.t()


def scored(model, batch):
    output = model(batch[0])
    return F.cross_entropy((model.scores(output) if hasattr(model, "scores") else output).flatten(0, 1), batch[1])


def penalised(model, batch):
    return scored(model, batch) + torch.cat([weight.flatten() for weight in model.parameters()]).norm()


CASES = {f"{kind.__name__} {loss.__name__}": (kind, loss) for kind in (Tied, TwoNames, Prototypes)
         for loss in (scored, penalised)}  # fmt: skip
ON_A_DEVICE = """
import torch, torch_sdaa, emacheck
from test_audit_borrowed import CASES
for name, (kind, loss) in CASES.items():
    torch.manual_seed(0)
    model, batch = kind(), (torch.randint(0, 20, (4, 8)), torch.randint(0, 20, (32,)))
    healthy = emacheck.audit_step(model, None, batch, loss, "sdaa", evaluation=False)
    with torch_sdaa.faults.injected("scale linalg_vector_norm by=0.5"):
        broken = emacheck.audit_step(model, None, batch, loss, "sdaa", evaluation=False, end_to_end=False)
    print(name, healthy.outcome, broken.outcome, broken.module, healthy.findings, sep="|")
"""


@pytest.mark.slow
def test_a_caller_that_uses_weights_of_those_it_calls_passes_on_a_device_and_its_fault_is_found(simulated_device):
    variables = simulated_device()
    paths = os.pathsep.join([str(Path(__file__).parent), variables["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, "-c", ON_A_DEVICE], env={**os.environ, **variables, "PYTHONPATH": paths},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    found = [line.split("|")[:4] for line in done.stdout.splitlines()]
    in_the_loss = {scored: ["PASS", "None"], penalised: ["FAIL", "(loss)"]}
    expected = [[name, "PASS", *in_the_loss[loss]] for name, (_, loss) in CASES.items()]
    assert found == expected, (done.stdout, done.stderr)
