"""The catalogue of faults, on a small network that has everything EMANet has, and the selftest's arithmetic."""

import json

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402, N812
from torch import nn  # noqa: E402

from emacheck.audit.confidence import clopper_pearson, lower_limit, upper_limit  # noqa: E402
from emacheck.audit.faults import CATALOGUE, catalogue, fault, load_faults  # noqa: E402
from emacheck.audit.reference import Plan, Reference  # noqa: E402
from emacheck.audit.selftest import (  # noqa: E402
    FIRST_REPORTED_SEED,
    Selftest,
    Trial,
    benign_variations,
    plain_fingerprint,
    try_fault,
    try_variation,
)
from emacheck.audit.selftest_text import selftest_text  # noqa: E402
from emacheck.audit.subject import Subject  # noqa: E402
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


@pytest.mark.parametrize("name", FAULTS)
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
    result = Selftest(faults=(found, missed), benign=(quiet, alarm), precision="fp32", device="cpu")
    fields = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert fields["rules"]["audit"]["detected"] == 1
    assert fields["rules"]["audit"]["false_alarms"] == 1
    assert fields["named"] == {"correctly": 1, "faults": 2}
    assert fields["faults"][0]["class"] == "norm"


def test_confidence_limits_are_those_of_the_tables():
    # Clopper and Pearson, 1934: 95 % limits for 3 of 10.
    assert clopper_pearson(3, 10) == pytest.approx((0.0667, 0.6525), abs=1e-4)
    assert clopper_pearson(0, 0) == (0.0, 1.0)
    assert upper_limit(10, 10) == 1.0
    assert lower_limit(10, 10, 0.025) == pytest.approx(0.6915, abs=1e-4)
    assert upper_limit(0, 200) < 0.015
