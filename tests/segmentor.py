"""A small segmentation network that has everything EMANet has, and the reference of one of its iterations."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from emacheck.audit.iteration.subject import Subject
from emacheck.audit.judging.reference import Plan, Reference


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


def made_reference():
    """Train the network for ten iterations and record one more."""
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
