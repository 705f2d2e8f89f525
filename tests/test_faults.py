"""The catalogue of faults, on a small network that has everything EMANet has."""

import pytest

torch = pytest.importorskip("torch")

from segmentor import loss, made_reference  # noqa: E402

from emacheck.audit.arithmetic.precision import Precision  # noqa: E402
from emacheck.audit.faults import CATALOGUE, catalogue, fault, load_faults  # noqa: E402
from emacheck.audit.iteration.subject import Subject  # noqa: E402
from emacheck.audit.judging.reference import Plan, Reference  # noqa: E402
from emacheck.audit.selftest.text import selftest_text  # noqa: E402
from emacheck.audit.selftest.trials import (  # noqa: E402
    FIRST_REPORTED_SEED,
    Selftest,
    Trial,
    benign_variations,
    plain_fingerprint,
    try_fault,
    try_variation,
)
from emacheck.errors import UsageError  # noqa: E402
from emacheck.judge import Outcome  # noqa: E402

FAULTS = catalogue()


@pytest.fixture(scope="module")
def reference():
    return made_reference()


@pytest.fixture(scope="module")
def plain(reference):
    return plain_fingerprint(reference)


# Hardly a value of this small network is changed by these: its gradient is shorter than 1, no activation reaches 6.
WITHOUT_EFFECT_HERE = {
    "gradients_clipped@1",
    "relu_has_an_upper_bound@6",
    "small_values_flushed@0.0001",
    "small_gradients_flushed@1e-07",
}
IN_ONE_ITERATION = [name for name, each in FAULTS.items() if "fp32" in each.precisions and each.shows_at == 1]
OF_EACH_KIND = {FAULTS[name].kind: name for name in reversed(IN_ONE_ITERATION)}.values()


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in OF_EACH_KIND else pytest.mark.slow) for name in IN_ONE_ITERATION],
)
def test_every_fault_changes_something_and_is_found(reference, plain, name):
    trial = try_fault(reference, FAULTS[name], plain)
    assert not trial.message, trial
    if name in WITHOUT_EFFECT_HERE:
        return
    assert trial.changed
    assert "audit" in trial.detected_by, trial
    # Detected by its numbers, not because it raised something.
    assert not trial.raised, trial
    if trial.module is not None:
        assert trial.named == trial.module, trial


@pytest.fixture(scope="module")
def half_precision(reference):
    """The same reference in fp16; the small network has large gradients, so they are made small."""
    subject = Subject(
        model=reference.subject.model,
        optimizer=reference.subject.optimizer,
        loss=lambda model, batch: {name: value / 2**10 for name, value in loss(model, batch).items()},
    )
    plan = Plan(evaluation=False, end_to_end=False, precision=Precision(name="fp16"))
    return Reference(subject=subject, batch=reference.batch, plan=plan, keep=True)


def test_flushed_subnormals_are_found_where_they_are_a_fault(reference, plain, half_precision):
    flushed = FAULTS["subnormals_flushed"]
    assert try_fault(reference, flushed, plain).message == "no fault in fp32"
    trial = try_fault(half_precision, flushed, plain_fingerprint(half_precision))
    assert trial.named == trial.module, trial
    # It does not make a selftest doubtful where it is none.
    found = Trial(name="a", kind="norm", detected_by=("audit",))
    faults = (found, try_fault(reference, flushed, plain))
    assert Selftest(faults=faults, benign=(), precision="fp32", device="cpu").outcome is Outcome.PASS


def test_rounding_to_the_accepted_precision_is_no_fault():
    assert FAULTS["one_layer_in_bfloat16"].precisions == ("fp32", "tf32", "fp16")
    assert FAULTS["convolutions_in_low_precision@10"].precisions == ("fp32",)
    assert FAULTS["dead_channel"].precisions == ("fp32", "tf32", "fp16", "bf16")


def test_nan_becomes_zero_where_it_is_swallowed(reference):
    for name in ("nan_swallowed_by_an_activation", "nan_swallowed_by_max_pooling"):
        candidate = reference.subject.twin()
        module = candidate.model.get_submodule(FAULTS[name](candidate))
        value = torch.tensor([float("nan"), *[0.0] * 6, float("inf")]).repeat(1, 16, 2, 1)
        assert not module(value.clone()).isnan().any()
        assert module(value.clone()).isinf().any()


def test_the_catalogue_is_documented():
    assert len({each.apply for each in FAULTS.values()}) >= 40
    assert all(each.about.endswith(".") for each in FAULTS.values())
    assert sum(each.imitates is not None for each in FAULTS.values()) >= 20
    assert all(each.imitates is None or each.imitates.startswith("https://") for each in FAULTS.values())


def test_benign_variations_do_not_alarm(reference):
    for variation in benign_variations(8):
        trial = try_variation(reference, variation)
        assert not trial.detected_by, trial
    assert len({str(variation) for variation in benign_variations(200)}) == 200
    assert all(variation.last_bit >= FIRST_REPORTED_SEED for variation in benign_variations(200))


def test_a_fault_without_effect_is_refused(reference, plain, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from emacheck.audit.faults import fault\n"
        "@fault(kind='norm')\n"
        "def nothing_at_all(candidate, severity):\n    'Does nothing.'\n"
        "@fault(kind='norm', severities=(2.0, 3.0))\n"
        "def epsilon_of_mine(candidate, severity):\n"
        "    'Scales an epsilon.'\n    candidate.model.stem[1].eps *= 1e3 * severity\n    return 'stem.1'\n"
    )
    try:
        found = load_faults(file)
        assert list(found) == ["nothing_at_all", "epsilon_of_mine@2", "epsilon_of_mine@3"]
        nothing, mine = (try_fault(reference, found[name], plain) for name in ("nothing_at_all", "epsilon_of_mine@2"))
    finally:
        for name in ("nothing_at_all", "epsilon_of_mine@2", "epsilon_of_mine@3"):
            CATALOGUE.pop(name, None)
    assert (nothing.changed, mine.changed, mine.named) == (False, True, "stem.1")
    result = Selftest(faults=(nothing, mine), benign=(), precision="fp32", device="cpu")
    assert result.outcome is Outcome.INCONCLUSIVE
    assert result.rules()["audit"]["faults"] == 1
    assert "NO EFFECT" in selftest_text(result, command="emacheck selftest")


def test_files_of_faults_are_checked(tmp_path):
    with pytest.raises(UsageError, match="no such Python file"):
        load_faults(tmp_path / "absent.py")
    (tmp_path / "broken.py").write_text("import nothing_like_this")
    with pytest.raises(UsageError, match="cannot be run: ModuleNotFoundError"):
        load_faults(tmp_path / "broken.py")
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(UsageError, match="registers no fault"):
        load_faults(tmp_path / "empty.py")
    with pytest.raises(UsageError, match="exists already"):
        fault(kind="norm")(CATALOGUE["one_gradient_zero"].apply)
