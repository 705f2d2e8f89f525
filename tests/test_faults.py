"""The catalogue of faults, on a small network that has everything EMANet has, and the selftest's arithmetic."""

import json

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from click.testing import CliRunner  # noqa: E402
from torch import nn  # noqa: E402

from emacheck.audit.confidence import clopper_pearson, lower_limit, upper_limit  # noqa: E402
from emacheck.audit.curve_rules import CURVE_RULES, CurveJudge  # noqa: E402
from emacheck.audit.curves import Training, train, train_with  # noqa: E402
from emacheck.audit.end_to_end import Conditions  # noqa: E402
from emacheck.audit.faults import CATALOGUE, catalogue, fault, load_faults  # noqa: E402
from emacheck.audit.precision import Precision  # noqa: E402
from emacheck.audit.reference import Plan, Reference  # noqa: E402
from emacheck.audit.selftest import (  # noqa: E402
    FIRST_REPORTED_SEED,
    Selftest,
    Trial,
    benign_variations,
    plain_fingerprint,
    repeats,
    try_fault,
    try_variation,
)
from emacheck.audit.selftest_picture import draw  # noqa: E402
from emacheck.audit.selftest_text import selftest_text  # noqa: E402
from emacheck.audit.subject import Subject  # noqa: E402
from emacheck.cli import selftest as command  # noqa: E402
from emacheck.errors import UsageError  # noqa: E402
from emacheck.judge import Outcome  # noqa: E402

FAULTS = catalogue()


class Attention(nn.Module):
    def __init__(self, channels, bases):
        super().__init__()
        self.num_stages, self.momentum = 3, 0.1
        self.register_buffer("bases", F.normalize(torch.randn(1, channels, bases), dim=1))

    def forward(self, value):
        pixels = value.flatten(2)
        bases = self.bases.repeat(len(value), 1, 1)
        with torch.no_grad():
            for _ in range(self.num_stages):
                attention = F.softmax(torch.einsum("bcn,bck->bnk", pixels, bases), dim=2)
                bases = torch.einsum("bcn,bnk->bck", pixels, F.normalize(attention, dim=1, p=1))
                bases = F.normalize(bases, dim=1, p=2)
        if self.training:
            mean = F.normalize(bases.mean(0, keepdim=True), dim=1, p=2)
            self.bases = (1 - self.momentum) * self.bases + self.momentum * mean
        return torch.einsum("bck,bnk->bcn", bases, attention).view_as(value)


class Block(nn.Module):
    def __init__(self, width, dilation):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, value):
        return self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(value))))) + value)


class PixelLoss(nn.Module):
    def __init__(self):
        super().__init__()
        self.loss_weight, self.avg_non_ignore, self.class_weight = 1.0, False, None

    def forward(self, logits, label, ignore_index):
        weight = None if self.class_weight is None else logits.new_tensor(self.class_weight)
        loss = F.cross_entropy(logits, label, weight=weight, reduction="none", ignore_index=ignore_index)
        count = (label != ignore_index).sum() if self.avg_non_ignore else label.numel()
        return self.loss_weight * loss.sum() / count


class Head(nn.Module):
    def __init__(self, width, classes):
        super().__init__()
        self.align_corners, self.ignore_index, self.num_classes = False, 255, classes
        self.middle = nn.Conv2d(width, width, 1).requires_grad_(requires_grad=False)
        self.ema_module = Attention(width, 4)
        self.conv_seg = nn.Conv2d(width, classes, 1)
        self.loss_decode = PixelLoss()

    def forward(self, value):
        return self.conv_seg(F.relu(value + self.ema_module(self.middle(value))))

    def loss(self, value, label):
        logits = F.interpolate(self.forward(value), label.shape[-2:], mode="bilinear", align_corners=self.align_corners)
        return self.loss_decode(logits, label, ignore_index=self.ignore_index)


class Preprocessor(nn.Module):
    def __init__(self):
        super().__init__()
        self._channel_conversion = True
        self.register_buffer("mean", torch.tensor([120.0, 115.0, 105.0]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([58.0, 57.0, 56.0]).view(3, 1, 1), persistent=False)

    def forward(self, image):
        image = image.flip(1) if self._channel_conversion else image
        return (image.float() - self.mean) / self.std


class Label:
    def __init__(self, data):
        self.data = data


class Sample:
    """As mmsegmentation's data samples: an object that moves, with a label map inside."""

    def __init__(self, label):
        self.gt_sem_seg = Label(label)

    def to(self, device):
        self.gt_sem_seg.data = self.gt_sem_seg.data.to(device)
        return self


class Segmentor(nn.Module):
    def __init__(self):
        super().__init__()
        self.data_preprocessor = Preprocessor()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        self.layer = nn.Sequential(Block(16, 1), Block(16, 2), Block(16, 2))
        self.decode_head = Head(16, 19)
        self.auxiliary_head = Head(16, 19)
        self.auxiliary_head.ema_module = nn.Identity()

    def forward(self, inputs, samples):
        label = torch.stack([sample.gt_sem_seg.data for sample in samples])
        features = self.layer(self.stem(inputs))
        return {
            "decode": self.decode_head.loss(features, label),
            "auxiliary": 0.4 * self.auxiliary_head.loss(features, label),
        }


def loss(model, batch):
    return model(model.data_preprocessor(batch["inputs"]), batch["samples"])


@pytest.fixture(scope="module")
def reference():
    torch.manual_seed(0)
    model = Segmentor()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    label = torch.randint(0, 19, (2, 32, 48))
    label[:, :4] = 255
    batch = {
        "inputs": torch.randint(0, 256, (2, 3, 32, 48)).to(torch.uint8),
        "samples": [Sample(each) for each in label],
    }
    for _ in range(10):
        optimizer.zero_grad()
        sum(loss(model, batch).values()).backward()
        optimizer.step()
    optimizer.zero_grad()
    subject = Subject(model=model, optimizer=optimizer, loss=loss)
    return Reference(subject=subject, batch=batch, plan=Plan(evaluation=False), keep=True)


@pytest.fixture(scope="module")
def plain(reference):
    return plain_fingerprint(reference)


# This small network has no values that these would change: its gradient is shorter than 1, no activation reaches 6.
WITHOUT_EFFECT_HERE = {
    "gradients_clipped@1",
    "relu_has_an_upper_bound@6",
    "small_values_flushed@0.0001",
    "small_gradients_flushed@1e-07",
}
IN_ONE_ITERATION = [name for name, each in FAULTS.items() if "fp32" in each.precisions and each.shows_at == 1]


@pytest.mark.parametrize("name", IN_ONE_ITERATION)
def test_every_fault_changes_something_and_is_found(reference, plain, name):
    trial = try_fault(reference, FAULTS[name], plain)
    assert not trial.message, trial
    assert trial.changed == (name not in WITHOUT_EFFECT_HERE)
    if name in WITHOUT_EFFECT_HERE:
        return
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


ITERATIONS = 12


@pytest.fixture(scope="module")
def curves(reference):
    subject, how = reference.subject, Conditions()
    batches = [reference.batch] * ITERATIONS
    plain = train(subject.twin(), batches, how)
    others = [train(subject.twin(), batches, Conditions(variation=each)) for each in repeats()]
    return batches, CurveJudge(reference=plain, repeats=others)


def test_trainings_from_one_state_are_paired_whatever_they_compute_on(reference, curves):
    batches, judge = curves
    again = train(reference.subject.twin(), batches, Conditions())
    assert again == judge.reference
    assert len(again.loss) == len(again.grad_norm) == len(again.lr) == ITERATIONS
    assert len(set(again.loss)) == ITERATIONS
    assert all(each != again for each in judge.repeats)
    assert judge.first_seen(again) == {}
    for variation in benign_variations(4):
        assert judge.first_seen(train(reference.subject.twin(), batches, Conditions(variation=variation))) == {}


@pytest.mark.parametrize(
    ("name", "first"),
    [("dead_channel", 1), ("momentum_off@0", 2), ("channels_not_swapped", 1), ("label_shifted", 1)],
)
def test_the_rules_on_curves_see_gross_faults_where_they_begin(reference, curves, name, first):
    batches, judge = curves
    training = train_with(FAULTS[name], reference.subject, batches, Conditions())
    seen = judge.first_seen(training)
    assert seen["first_iterations"] == seen["curves"] == first, seen
    assert set(seen) <= set(CURVE_RULES)


def test_the_command_sends_every_trial_through_every_rule(monkeypatch, tmp_path, reference, plain, curves):
    """On the small network in place of EMANet."""
    kept = {"reference": reference, "plain": plain, "faults": FAULTS, "batches": curves[0]}
    monkeypatch.setattr(command, "audited_request", lambda options: None)  # noqa: ARG005
    monkeypatch.setattr(command, "_prepare", lambda *_: None)
    monkeypatch.setattr(command, "_prepared", kept)
    monkeypatch.chdir(tmp_path)
    arguments = ["--only", "momentum_off*", "--benign", "2", "--curves", str(ITERATIONS), "--plot", "a.png", "--json"]
    done = CliRunner().invoke(command.selftest, arguments, standalone_mode=False)
    assert done.exception is None, done.exception
    assert done.return_value == 0, done.output
    result = json.loads(done.stdout)
    assert {name: rule["detected"] for name, rule in result["rules"].items()} == {
        "modelzoo": 0,
        "mean_relative_error": 0,
        "first_iterations": 2,
        "envelope": 3,
        "curves": 3,
        "audit_isolated": 3,
        "audit_end_to_end": 3,
        "audit": 3,
    }
    assert all(rule["trials"] == 2 and rule["false_alarms"] == 0 for rule in result["rules"].values())
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_batch_that_is_handed_out_late_is_for_the_rules_on_curves(reference, plain, curves):
    _, judge = curves
    stale = FAULTS["batch_of_the_previous_iteration"]
    trial = try_fault(reference, stale, plain)
    assert (trial.counts, trial.message) == (False, "shows from iteration 2 on")
    inputs = reference.batch["inputs"]
    batches = [{**reference.batch, "inputs": inputs.roll(at, -1)} for at in range(ITERATIONS)]
    own = CurveJudge(reference=train(reference.subject.twin(), batches, Conditions()), repeats=judge.repeats)
    training = train_with(stale, reference.subject, batches, Conditions())
    assert training.loss[0] == own.reference.loss[0]
    trial = trial.with_curves(training, own)
    assert trial.counts
    assert trial.first_seen["first_iterations"] == 2
    assert "audit" not in trial.detected_by


def test_a_training_that_raises_is_seen_by_every_rule_where_it_ends(reference, curves):
    batches, judge = curves
    candidate = reference.subject.twin()
    count = iter(range(ITERATIONS))

    def change(batch):
        if next(count) == 3:
            raise ValueError("out of paper\nand more")
        return batch

    candidate.change_batch = change
    training = train(candidate, batches, Conditions())
    assert (training.raised, len(training.loss)) == ("ValueError; out of paper", 3)
    assert judge.first_seen(training) == dict.fromkeys(CURVE_RULES, 4)


def test_the_users_rule_passes_a_loss_that_is_far_too_low():
    def training(factor):
        return Training(loss=tuple(factor * (4 - 0.1 * at) for at in range(20)))

    low = CurveJudge(reference=training(1.0), repeats=()).first_seen(training(0.6))
    assert low == {"mean_relative_error": 1, "first_iterations": 1, "curves": 1}
    assert CurveJudge(reference=training(1.0), repeats=()).first_seen(training(1.4))["modelzoo"] == 1


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


def test_a_false_alarm_or_a_missed_fault_fails_the_selftest():
    found = Trial(name="a", kind="norm", detected_by=("audit", "audit_isolated"), moved=0.5, module="x", named="x")
    missed = Trial(name="b", kind="norm", moved=0.5, module="x", named="y")
    small = Trial(name="c", kind="norm", moved=1e-5)
    quiet, alarm = Trial(name="v", kind="benign"), Trial(name="w", kind="benign", detected_by=("audit",))

    def outcome(faults, benign):
        return Selftest(faults=faults, benign=benign, precision="fp32", device="cpu").outcome

    assert outcome((found, small), (quiet,)) is Outcome.PASS
    assert outcome((found, missed), (quiet,)) is Outcome.FAIL
    assert outcome((found,), (quiet, alarm)) is Outcome.FAIL
    assert outcome((), (quiet,)) is Outcome.INCONCLUSIVE
    # The rules on curves are counted; the audit decides.
    wrong = Trial(name="x", kind="benign", detected_by=("curves",), first_seen={"curves": 3})
    assert outcome((found,), (wrong,)) is Outcome.PASS
    result = Selftest(faults=(found, missed), benign=(quiet, alarm), precision="fp32", device="cpu")
    fields = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert fields["rules"]["audit"]["detected"] == 1
    assert fields["rules"]["audit"]["false_alarms"] == 1
    assert fields["named"] == {"correctly": 1, "faults": 2}
    assert fields["faults"][0]["class"] == "norm"
    assert list(fields["rules"]) == ["audit_isolated", "audit_end_to_end", "audit"]


def test_all_rules_are_in_the_table_and_in_the_picture():
    found = Trial(
        name="dead_channel",
        kind="kernel",
        isolated=100.0,
        end_to_end=float("inf"),
        detected_by=("envelope", "curves", "audit"),
        first_seen={"envelope": 7, "curves": 7, "audit": 1},
    )
    none = Trial(name="short", kind="kernel", changed=False, message="no fault in bf16")
    result = Selftest(
        faults=(found, none), benign=(Trial(name="v", kind="benign"),), precision="bf16", device="cpu", iterations=20
    )
    rules = result.to_json()["rules"]
    assert list(rules) == [*CURVE_RULES, "audit_isolated", "audit_end_to_end", "audit"]
    assert rules["envelope"] | {"interval": None} == {
        "faults": 1,
        "detected": 1,
        "trials": 1,
        "false_alarms": 0,
        "interval": None,
        "upper_limit": pytest.approx(0.95),
        "median_first_seen": 7,
    }
    lines = selftest_text(result, command="emacheck selftest").splitlines()
    row = next(line.split() for line in lines if line.strip().startswith("dead_channel"))
    assert row[2:8] == [".", ".", ".", "7", "7", "100"]
    assert any(line.split() == ["short", "kernel", "no", "fault", "in", "bf16"] for line in lines)
    assert draw(result).startswith(b"\x89PNG")


def test_confidence_limits_are_those_of_the_tables():
    # Clopper and Pearson, 1934: 95 % limits for 3 of 10.
    assert clopper_pearson(3, 10) == pytest.approx((0.0667, 0.6525), abs=1e-4)
    assert clopper_pearson(0, 0) == (0.0, 1.0)
    assert upper_limit(10, 10) == 1.0
    assert lower_limit(10, 10, 0.025) == pytest.approx(0.6915, abs=1e-4)
    assert upper_limit(0, 200) < 0.015
