"""Optimizers that are unlike torch's own: what hangs on them and on weights is copied, and all state is compared."""

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from torch import nn  # noqa: E402

import emacheck  # noqa: E402
from emacheck.audit.iteration.subject import Candidate, copied, move  # noqa: E402
from emacheck.errors import UsageError  # noqa: E402
from emacheck.judge import Outcome  # noqa: E402


class Counting(torch.optim.Optimizer):
    """Counts in itself, in its group and in its state, keeps lists, and reads an attribute of each weight."""

    def __init__(self, parameters):
        super().__init__(parameters, {"lr": 0.1, "count": 0})
        self.boost = [2.0]

    @torch.no_grad()
    def step(self, closure=None):  # noqa: ARG002
        self.taken = getattr(self, "taken", 0) + 1
        for group in self.param_groups:
            group["count"] += 1
            for weight in group["params"]:
                state = self.state[weight]
                if not state:
                    state.update(history=[torch.zeros_like(weight)], number=0)
                state["number"] += 1
                state["history"][0].mul_(0.9).add_(weight.grad)
                weight.add_(state["history"][0], alpha=-group["lr"] * self.boost[0] * weight.scale / self.taken)


def squares(model, batch):
    return F.mse_loss(model(batch[0]), batch[1])


BATCH = (torch.linspace(-1, 1, 48).reshape(6, 8), torch.linspace(0, 1, 6).reshape(6, 1))


def trained(make):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
    for weight in model.parameters():
        weight.scale = 0.5
    optimizer = make(model.parameters())
    for _ in range(2):
        optimizer.zero_grad()
        squares(model, BATCH).backward()
        optimizer.step()
    optimizer.zero_grad()
    return model, optimizer


def changed_by_the_step(change):
    def prepare(candidate):
        own = candidate.optimizer.step

        def step():
            own()
            change(candidate.optimizer)

        candidate.optimizer.step = step

    return prepare


def count(optimizer):
    optimizer.param_groups[0]["count"] += 5


def number(optimizer):
    for state in optimizer.state.values():
        state["number"] += 7


def history(optimizer):
    for state in optimizer.state.values():
        state["history"][0].mul_(1.01)


@pytest.mark.parametrize("change", [None, count, number, history])
def test_lists_and_numbers_in_an_optimizers_state_and_groups_are_compared(change):
    model, optimizer = trained(Counting)
    prepare = change and changed_by_the_step(change)
    result = emacheck.audit_step(model, optimizer, BATCH, squares, "cpu", prepare=prepare, evaluation=False)
    if change is None:
        assert result.outcome is Outcome.PASS, result.findings
    else:
        assert (result.outcome, result.module, result.phase) == (Outcome.FAIL, "(optimizer)", "optimizer")
        assert f"state {change.__name__}" in result.findings[0].tensor
    assert (optimizer.taken, optimizer.param_groups[0]["count"]) == (2, 2)


@pytest.mark.parametrize("taken", [0, 2])
def test_each_iteration_starts_from_what_the_optimizer_counts_in_itself(taken):
    model, optimizer = trained(Counting)
    if not taken:
        del optimizer.taken
    result = emacheck.audit_step(model, optimizer, BATCH, squares, "cpu", evaluation=False)
    updates = [e for e in result.errors if e.level == "end to end" and e.tensor.startswith("update")]
    assert max(error.accepted for error in updates) < 1e-5


def test_hooks_of_weights_and_of_the_optimizer_run_on_every_side():
    model, optimizer = trained(torch.optim.SGD)
    ran = set()

    def clip(optimizer, args, kwargs):
        ran.add("optimizer")
        for group in optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], 1e-3)

    def shrink(gradient):
        ran.add("weight")
        return gradient * 0.1

    optimizer.register_step_pre_hook(clip)
    model[0].weight.register_hook(shrink)
    healthy = emacheck.audit_step(model, optimizer, BATCH, squares, "cpu", evaluation=False)
    assert (healthy.outcome, ran) == (Outcome.PASS, {"optimizer", "weight"})
    unhooked = emacheck.audit_step(
        model, optimizer, BATCH, squares, "cpu", evaluation=False,
        prepare=lambda candidate: candidate.optimizer._optimizer_step_pre_hooks.clear(),
    )  # fmt: skip
    assert (unhooked.outcome, unhooked.module) == (Outcome.FAIL, "(optimizer)")


def test_a_method_that_is_a_hook_belongs_to_the_copy():
    class Scaled(nn.Linear):
        def hook(self, gradient):
            return gradient * self.factor

    model = Scaled(2, 1)
    model.factor = 2.0
    model.weight.register_hook(model.hook)
    twin = copied(model)
    twin.factor = 3.0
    twin(torch.ones(1, 2)).sum().backward()
    assert twin.weight.grad.tolist() == [[3.0, 3.0]]


def test_what_would_act_on_the_original_or_cannot_be_copied_is_refused():
    def hook_of_a_weight(model, optimizer):
        model[0].weight.register_hook(lambda gradient: gradient + len(model))

    def hook_of_the_optimizer(model, optimizer):
        optimizer.register_step_pre_hook(lambda *_: optimizer.zero_grad())

    def step(model, optimizer):
        optimizer.step = lambda: None

    def attribute(model, optimizer):
        optimizer.numbers = (each for each in "ab")

    expected = {
        hook_of_a_weight: r"a hook of parameter 0.weight .* holds the original Sequential",
        hook_of_the_optimizer: r"a hook of optimizer SGD .* holds the original SGD",
        step: r"step of optimizer SGD replaced by a function",
        attribute: r"attribute numbers of optimizer SGD, which cannot be copied",
    }
    for spoil, message in expected.items():
        model, optimizer = trained(torch.optim.SGD)
        spoil(model, optimizer)
        with pytest.raises(UsageError, match=message):
            emacheck.audit_step(model, optimizer, BATCH, squares, "cpu")


def test_a_learning_rate_schedule_on_the_optimizer_is_no_obstacle():
    model, optimizer = trained(torch.optim.SGD)
    torch.optim.lr_scheduler.StepLR(optimizer, 2)
    before = model[0].weight.detach().clone()
    assert emacheck.audit_step(model, optimizer, BATCH, squares, "cpu", evaluation=False).outcome is Outcome.PASS
    assert torch.equal(model[0].weight, before)


def test_an_optimizer_that_steps_on_no_cpu_is_told_what_to_change():
    model, optimizer = trained(lambda parameters: torch.optim.AdamW(parameters, lr=1e-3))
    optimizer.param_groups[0]["capturable"] = True
    result = emacheck.audit_step(model, optimizer, BATCH, squares, "cpu")
    assert result.outcome is Outcome.INCONCLUSIVE
    for finding in result.findings:
        assert "torch steps on no CPU with capturable=True. Set it to False in every group" in finding.message
        assert "casts" not in finding.message
    optimizer.param_groups[0]["capturable"] = False
    assert emacheck.audit_step(model, optimizer, BATCH, squares, "cpu").outcome is Outcome.PASS


@pytest.mark.parametrize("option", [{}, {"foreach": True}, {"fused": True}, {"capturable": True}])
def test_a_step_counter_goes_to_the_device_only_where_a_kernel_reads_it_there(option):
    model, optimizer = trained(lambda parameters: torch.optim.AdamW(parameters, lr=1e-3))
    optimizer.param_groups[0].update(option)
    candidate = Candidate(model=model, optimizer=optimizer, loss=squares)
    move(candidate, device=torch.device("meta"), dtype=torch.float64)
    (states,) = {(s["step"].device.type, s["step"].dtype, s["exp_avg"].dtype) for s in optimizer.state.values()}
    read_there = "fused" in option or "capturable" in option
    assert states == ("meta" if read_there else "cpu", torch.float32, torch.float64)
