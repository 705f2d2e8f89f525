"""The audit on networks that it was not calibrated on: the measurement runs, and its page is what it stored."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import audit_zoo  # noqa: E402
from zoo import page as zoo_page  # noqa: E402
from zoo.networks import ZOO, total  # noqa: E402
from zoo.orders import ORDERS, Order  # noqa: E402
from zoo.trial import read  # noqa: E402

from emacheck.audit.iteration.nested import snapshot  # noqa: E402


@pytest.fixture(scope="module")
def stored():
    return read(audit_zoo.RESULTS)


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Return a function that measures a little of two networks, and the file in which it is stored."""
    file = tmp_path / "zoo.json"
    monkeypatch.setattr(audit_zoo, "VARIATIONS", 1)
    monkeypatch.setattr(audit_zoo, "ORDERS", ("backwards",))
    for network in ("regression", "recommender"):
        monkeypatch.setitem(ZOO, network, replace(ZOO[network], warm_up=10))
    some = audit_zoo.faults
    monkeypatch.setattr(audit_zoo, "faults", lambda *args: [f for f in some(*args) if f.kind == "optimizer"][:2])
    arguments = ["audit_zoo.py", "--seeds", "1", "--networks", "regression", "recommender", "--results", str(file)]
    monkeypatch.setattr(sys, "argv", arguments)
    threads = torch.get_num_threads()
    yield audit_zoo.main, file
    torch.set_num_threads(threads)


def test_the_page_shows_the_stored_results(stored):
    again = "run: python benchmarks/audit_zoo.py --render"
    assert zoo_page.PAGE.read_text(encoding="utf-8") == zoo_page.page(*stored), again


def test_every_network_of_the_zoo_was_measured_with_the_limits_that_hold_now(stored):
    machine, trials = stored
    assert {trial.network for trial in trials} == set(ZOO)
    assert machine["limits"] == audit_zoo.asdict(audit_zoo.Limits())


def test_the_measurement_runs_and_a_second_call_goes_on_where_the_first_one_stopped(measured):
    main, file = measured
    main()
    first = file.read_text(encoding="utf-8")
    machine, trials = read(file)
    assert {(trial.network, trial.part) for trial in trials} == {
        (network, part) for network in ("regression", "recommender") for part in ("step", "benign", "fault")
    }
    assert {trial.outcome for trial in trials if trial.part != "fault"} == {"PASS"}
    assert {trial.outcome for trial in trials if trial.part == "fault" and trial.changed} == {"FAIL"}
    main()
    assert file.read_text(encoding="utf-8") == first
    assert "## What came out" in zoo_page.page(machine, trials)


def iteration(network, order=None):
    """Return loss and gradients of one iteration in float64."""
    entry = ZOO[network]
    torch.manual_seed(0)
    # Where nothing is dropped, norms take the statistics of the batch.
    model = entry.build().double().train(network != "language")
    batch = snapshot(entry.batch(0), device=torch.device("cpu"), dtype=torch.float64)
    if order is None:
        loss = total(entry.loss(model, batch))
        loss.backward()
    else:
        with order.around():
            loss = total(entry.loss(model, batch))
            loss.backward()
    return [loss.detach(), *(weight.grad for weight in model.parameters() if weight.grad is not None)]


@pytest.mark.parametrize("network", ["residual", "mobile", "language", "vision", "unet", "recommender", "autoencoder"])
def test_sums_in_another_order_are_the_same_sums(network):
    plain = iteration(network)
    for name in ORDERS:
        other = iteration(network, Order(name, seed=1))
        pairs = list(zip(plain, other, strict=True))
        assert all(torch.allclose(one, two, rtol=1e-9, atol=1e-12) for one, two in pairs)
        assert not all(torch.equal(one, two) for one, two in pairs)
