"""What the doctor sees of a dropout that is wrong, and that it sees nothing in torch's own."""

import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402

from emacheck.train.doctor.dropout import SHARES, problem_of  # noqa: E402

pytest.importorskip("mmengine")


class OtherGradient(torch.autograd.Function):
    """A dropout whose gradient passes everywhere."""

    @staticmethod
    def forward(ctx, x, share):  # noqa: ARG004
        return functional.dropout(x, share)

    @staticmethod
    def backward(ctx, gradient):  # noqa: ARG004
        return gradient, None


def with_one_mask(x, share):
    drawn = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
    return x * (drawn >= share) / (1 - share)


def in_pairs(x, share):
    drawn = torch.rand(x[:, ::2].shape).repeat_interleave(2, 1)
    return x * (drawn >= share) / (1 - share)


def with_one_mask_for_all_images(x, share):
    order = torch.randperm(x[0].numel()).reshape(x[:1].shape)
    return x * (order >= share * x[0].numel()) / (1 - share)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("dropout", [functional.dropout, functional.dropout2d])
def test_the_dropout_of_torch_on_the_cpu_has_no_problem(dropout, share):
    assert problem_of(dropout, share, "cpu") == ""


@pytest.mark.parametrize(
    ("dropout", "words"),
    [
        (lambda x, share: functional.dropout(x, share) * (1 + 1e-4), "keeps 1.11122, expected 1.11111"),
        (lambda x, share: functional.dropout(x, share) * (1 - share), "keeps 1, expected 1.11111"),
        (lambda x, share: functional.dropout(x, share + 0.01), "expected 10%"),
        (lambda x, share: x / (1 - share), "drops 0.000%, expected 10%"),
        (lambda x, share: functional.dropout(x, share) * torch.nan, "drops 0.000%, expected 10%"),
        (OtherGradient.apply, "the gradient passes where the output does not"),
        (lambda x, share: functional.dropout(x.detach(), share) + 0 * x, "the gradient passes"),
        (with_one_mask, "a second mask is like the first one"),
        (in_pairs, "elements 1 apart are dropped together"),
        (with_one_mask_for_all_images, "apart are dropped together"),
    ],
)
def test_a_dropout_that_is_wrong_is_told_from_a_right_one(dropout, words):
    assert words in problem_of(dropout, 0.1, "cpu")
