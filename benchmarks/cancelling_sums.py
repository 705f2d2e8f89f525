"""How often a healthy device fails in a sum whose terms cancel: trained regressions on a CPU that sums in other orders.

The gradient of the last layer's bias is the sum of the residuals, which training brings to zero. The reference computes it in
one order or two and may be right by luck, and is then accepted nowhere near what another order does.

    python benchmarks/cancelling_sums.py
"""

import json
import os
from pathlib import Path
from typing import Any

import torch
from host import cpu_facts
from zoo.orders import ORDERS, Order

import emacheck
from emacheck.audit.findings.result import AuditResult
from emacheck.audit.lockstep import isolated

RESULTS = Path(__file__).parent / "results" / "cancelling_sums.json"
SEEDS, STEPS, SAMPLES = 100, 300, 64
INPUTS, HIDDEN = 6, 32


def squared_error(model: torch.nn.Module, batch: Any) -> torch.Tensor:
    """Return the mean squared error."""
    inputs, aims = batch
    return torch.nn.functional.mse_loss(model(inputs), aims)


def draw(generator: torch.Generator, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw a batch of the regression: the sine of a projection, with noise."""
    inputs = torch.randn(SAMPLES, INPUTS, generator=generator)
    return inputs, torch.sin(inputs @ weights) + 0.1 * torch.randn(SAMPLES, 1, generator=generator)


def trained(seed: int) -> tuple[torch.nn.Module, torch.optim.Optimizer, Any]:
    """Train one regression on one batch, whose residuals then cancel; return its network, its optimizer and that batch."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(INPUTS, 1, generator=generator)
    model = torch.nn.Sequential(torch.nn.Linear(INPUTS, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    batch = draw(generator, weights)
    for _ in range(STEPS):
        optimizer.zero_grad()
        squared_error(model, batch).backward()
        optimizer.step()
    return model, optimizer, batch


def over(result: AuditResult) -> list[dict[str, Any]]:
    """Return the tensors that are over their limit."""
    return [
        {
            "module": error.module,
            "tensor": error.tensor,
            "phase": error.phase,
            "level": error.level,
            "error": error.error,
            "accepted": error.accepted,
            "ratio": round(error.ratio, 1),
            "limit": error.limit,
        }
        for error in result.errors
        if not error.ratio <= error.limit
    ]


def failures(model: torch.nn.Module, optimizer: torch.optim.Optimizer, batch: Any, seed: int) -> list[dict[str, Any]]:
    """Audit one regression in every order; return what did not pass."""
    rows = []
    for order in ORDERS:
        result = emacheck.audit_step(
            model, optimizer, batch, squared_error, "cpu",
            prepare=lambda candidate, order=order: candidate.around.append(Order(order).around),
        )  # fmt: skip
        if result.outcome is not emacheck.Outcome.PASS:
            rows.append({"seed": seed, "order": order, "outcome": str(result.outcome), "over": over(result)})
    return rows


def main() -> None:
    """Audit every regression in every order, without the second look and with it, and write which failed."""
    threads = os.cpu_count() or 1
    torch.set_num_threads(threads)
    found: dict[str, list[dict[str, Any]]] = {"without the second look": [], "with the second look": []}
    few = isolated.FEW
    for seed in range(SEEDS):
        model, optimizer, batch = trained(seed)
        for name, rows in found.items():
            isolated.FEW = few if name.startswith("with the") else 0
            rows.extend(failures(model, optimizer, batch, seed))
    result = {"machine": cpu_facts(threads), "seeds": SEEDS, "orders": list(ORDERS), "not passed": found}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
