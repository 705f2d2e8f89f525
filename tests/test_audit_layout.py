"""A module alone gets its inputs and gradients as they lay in memory: what is wrong of a slice only is found there."""

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from small_network import trained  # noqa: E402
from torch import nn  # noqa: E402

import emacheck  # noqa: E402
from emacheck.audit.iteration.layout import moved  # noqa: E402
from emacheck.audit.iteration.nested import snapshot  # noqa: E402
from emacheck.audit.lockstep.played import computed  # noqa: E402
from emacheck.audit.operators.called import Called  # noqa: E402

real = torch.tanh
BASE = torch.arange(240.0).reshape(4, 6, 10)
LAYOUTS = {
    "whole": BASE,
    "the last of three parts": BASE.chunk(3, 1)[2],
    "one row of each": BASE[:, 1],
    "every second, transposed": BASE[..., ::2].transpose(0, 2),
    "expanded": BASE[:, :1].expand(4, 5, 10),
    "a number": BASE[1, 1, 1],
    "overlapping windows": BASE.unfold(2, 4, 2),
    "nothing": BASE[:, 3:3],
    "complex": torch.view_as_complex(BASE.reshape(4, 6, 5, 2))[:, 1],
}


class Sliced(nn.Module):
    """Hands one half of a tensor to one activation and the second sample to another; its sum expands the gradient."""

    def __init__(self):
        super().__init__()
        self.wide = nn.Linear(6, 16)
        self.left, self.second, self.last = nn.Tanh(), nn.Tanh(), nn.Tanh()
        self.head = nn.Linear(8, 3)

    def forward(self, value):
        left, right = self.wide(value).chunk(2, -1)
        mixed = self.left(left) * right
        mixed = mixed + self.second(mixed[1])
        return self.last(self.head(mixed)).sum(1)


class Turned(nn.Module):
    """Its own activation gets the gradient of a transposed tensor."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(6, 6), nn.Linear(5, 3)

    def forward(self, value):
        return self.head(torch.tanh(self.first(value)).transpose(1, 2)).mean(1)


class Pooled(nn.Module):
    """Pools one half of a tensor."""

    def __init__(self):
        super().__init__()
        self.wide, self.pool, self.head = nn.Linear(6, 16), nn.MaxPool1d(2), nn.Linear(4, 3)

    def forward(self, value):
        return self.head(self.pool(self.wide(value).chunk(2, -1)[1])).mean(1)


def backward_wrong(when):
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value):
            ctx.save_for_backward(real(value))
            return real(value)

        @staticmethod
        def backward(ctx, gradient):
            (output,) = ctx.saved_tensors
            return gradient * (1 - output**2) * (1.001 if when(gradient) else 1)

    return Wrong.apply


def loss(model, batch):
    return F.cross_entropy(model(batch["value"]), batch["label"])


def audited(broken, model=Sliced, *, owner=torch, name="tanh"):
    torch.manual_seed(0)
    batch = {"value": torch.randn(4, 5, 6), "label": torch.randint(0, 3, (4,))}
    subject = trained(model(), batch, loss)
    return emacheck.audit_step(*subject, "cpu", prepare=lambda candidate: candidate.patch(owner, name, broken))


@pytest.mark.parametrize(
    ("module", "tanh"),
    [
        (None, real),
        ("left", lambda value: real(value) * (1 if value.is_contiguous() else 1.001)),
        ("second", lambda value: real(value) * (1.001 if value.storage_offset() else 1)),
        ("last", backward_wrong(lambda gradient: 0 in gradient.stride())),
    ],
    ids=["healthy", "of a slice only", "where an offset is ignored", "of an expanded gradient only"],
)
def test_what_is_wrong_in_one_layout_only_is_named(module, tanh):
    result = audited(tanh)
    assert [each.module for each in result.findings if each.module != "(iteration)"] == [module] * bool(module), result


def test_a_max_pooling_that_is_wrong_of_a_slice_only_is_named():
    pool = F.max_pool1d

    def of_slices(value, *given, **named):
        return pool(value, *given, **named) * (1 if value.is_contiguous() else 1.001)

    result = audited(of_slices, Pooled, owner=F, name="max_pool1d")
    assert result.module == "pool", result


def test_the_code_of_a_caller_gets_gradients_as_they_lay_in_memory():
    result = audited(backward_wrong(lambda gradient: not gradient.is_contiguous()), Turned)
    assert result.module == "(model)", result


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_copy_lies_in_memory_as_the_original(name):
    tensor = LAYOUTS[name]
    for copy in (snapshot(tensor), snapshot(tensor, device=torch.device("cpu"))):
        assert torch.equal(copy, tensor)
        assert copy.stride() == tensor.stride()
        assert (copy.storage_offset() > 0) is (tensor.storage_offset() > 0 and tensor.numel() > 0)
        assert copy.untyped_storage().data_ptr() != tensor.untyped_storage().data_ptr() or not tensor.numel()


def test_a_copy_in_float64_lies_in_memory_as_the_original():
    tensor = LAYOUTS["one row of each"]
    exact = snapshot(tensor, device=torch.device("cpu"), dtype=torch.float64)
    assert (exact.dtype, exact.stride()) == (torch.float64, tensor.stride())


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_a_call_is_given_may_be_modified_in_place_and_says_what_gradient_arrives(name):
    arrived = {}
    (given,) = computed((moved(LAYOUTS[name]),), {"0"}, lambda gradients: arrived.update(gradients) or ())
    assert given.stride() == LAYOUTS[name].stride()
    if name not in ("expanded", "overlapping windows"):  # of these one number has several places
        given.mul_(2)
    given.abs().sum().backward()
    assert arrived["0"].shape == given.shape


def test_no_operator_of_the_audits_own_runs_between_those_of_a_call():
    value, called = moved(BASE), Called(torch.device("cpu"))
    with called:
        computed(value, {""}, lambda _: ())
    assert called.calls == []


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_nested_tensor_has_no_strides_and_is_copied_as_torch_does():
    ragged = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    assert [each.tolist() for each in snapshot(ragged).unbind()] == [[1.0] * 2, [1.0] * 3]


class Direct(torch.nn.Module):
    """The kernel of attention itself, which reads the last dimension as one piece of memory."""

    def forward(self, query, key, value):
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value)[0]


class Attending(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.projection, self.attention = torch.nn.Linear(8, 24), Direct()

    def forward(self, words):
        return self.attention(*(each.contiguous() for each in self.projection(words).chunk(3, -1)))


@pytest.mark.parametrize("wrong", [False, True])
def test_a_kernel_that_misreads_the_channels_last_makes_no_error_acceptable(wrong):
    torch.manual_seed(0)

    def prepare(candidate):
        if wrong:
            candidate.model.attention.register_forward_hook(lambda *given: 1.01 * given[-1])

    def loss(model, batch):
        return model(batch).square().sum()

    result = emacheck.audit_step(
        Attending(), None, torch.randn(2, 3, 20, 8), loss, "cpu", prepare=prepare, end_to_end=False
    )
    assert (str(result.outcome), result.module) == (("FAIL", "attention") if wrong else ("PASS", None))
    assert any("channels last" in note for note in result.notes)


@pytest.mark.parametrize("wrong", [False, True])
def test_gradients_that_the_channels_last_spoil_make_no_error_acceptable_though_they_are_small(wrong):
    """On a CPU the backward pass of an instance norm of one image misreads gradients whose channels come last."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.InstanceNorm2d(8, affine=True), torch.nn.ReLU())

    def prepare(candidate):
        if wrong:
            candidate.model[1].weight.register_hook(lambda gradient: 1.01 * gradient)

    def loss(model, batch):
        return model(batch).square().mean()

    result = emacheck.audit_step(model, None, torch.randn(1, 3, 9, 9), loss, "cpu", prepare=prepare, end_to_end=False)
    assert (str(result.outcome), result.module) == (("FAIL", "1") if wrong else ("PASS", None))


def ragged(device="cpu"):
    return torch.nested.nested_tensor([torch.randn(n, 8) for n in (3, 5)], layout=torch.jagged, device=device)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("wrong", [False, True])
def test_what_modules_hand_over_may_be_ragged(wrong):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))

    def prepare(candidate):
        if wrong:
            candidate.model[1].register_forward_hook(lambda *given: 1.001 * given[-1])

    def loss(model, batch):
        return torch.cat(model(batch).unbind()).square().mean()

    result = emacheck.audit_step(model, None, ragged(), loss, "cpu", prepare=prepare)
    assert (str(result.outcome), result.module) == (("FAIL", "1") if wrong else ("PASS", None)), result.findings
