"""Small networks that are unlike EMANet and unlike each other, each trained a little on data that has a structure.

What a network needs stands in one :class:`Entry`: how it is built, its optimizer, its loss and its batches. All of it is
drawn from one seed, in the same way on every machine.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from emacheck.audit.iteration.subject import Subject
from zoo.convolutions import Autoencoder, UNet, gated, group_norms, mobile, residual
from zoo.data import clusters, discs, discs_and_noise, ratings, sentences, signals, surface, topics, waves
from zoo.losses import cross_entropy, evidence, huber, likes, next_word, overlap, smoothed, squares
from zoo.optimizers import adagrad, adam, adam_clipped, adamw, amsgrad, momentum, nesterov, rmsprop
from zoo.sequences import Forecast, LanguageModel, Reader, Vision
from zoo.tables import Perceptron, Recommender, regression

# The stock initialisation hides faults; so many iterations make a state that is alive.
WARM_UP = 40

Draw = Callable[[torch.Generator], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One network of the zoo.

    Attributes:
        about: What is in it.
        build: Returns the network.
        optimizer: Returns the optimizer over a network's parameters.
        trained_by: The optimizer in words.
        loss: Returns the loss of a network and a batch.
        draw: Returns a batch; what the data have in common is drawn from a generator of their own.
        warm_up: Plain iterations before the audit.
    """

    about: str
    build: Callable[[], nn.Module]
    optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    trained_by: str
    loss: Callable[[nn.Module, Any], Any]
    draw: Draw
    warm_up: int = WARM_UP

    def trained(self, seed: int) -> Subject:
        """Return the network, its optimizer and its loss after the warm-up from a seed."""
        torch.manual_seed(seed)
        model = self.build()
        optimizer = self.optimizer(model)
        batches = torch.Generator().manual_seed(1000 + seed)
        for _ in range(self.warm_up):
            optimizer.zero_grad()
            total(self.loss(model, self.draw(batches))).backward()
            optimizer.step()
        optimizer.zero_grad()
        return Subject(model=model, optimizer=optimizer, loss=self.loss)

    def batch(self, seed: int) -> Any:
        """Return a batch that no warm-up has seen."""
        return self.draw(torch.Generator().manual_seed(500_000 + seed))


def total(losses: Any) -> torch.Tensor:
    """Return the sum of the losses."""
    return sum(losses.values()) if isinstance(losses, dict) else losses


SGD = "SGD, momentum, weight decay"
# A network's place decides which share of the faults it gets from which seed.
ZOO: dict[str, Entry] = {
    "perceptron": Entry(
        about="linear layers, layer norms, ReLU, tanh, dropout of 0; cross entropy",
        build=Perceptron,
        optimizer=momentum,
        trained_by=SGD,
        loss=cross_entropy,
        draw=clusters,
    ),
    "regression": Entry(
        about="two linear layers, tanh, one output; squared error",
        build=regression,
        optimizer=adamw,
        trained_by="AdamW in two groups",
        loss=squares,
        draw=surface,
        warm_up=300,
    ),
    "residual": Entry(
        about="residual blocks, batch norms behind convolutions with a bias, max pooling; cross entropy",
        build=residual,
        optimizer=momentum,
        trained_by=SGD,
        loss=cross_entropy,
        draw=waves,
    ),
    "mobile": Entry(
        about="depthwise and grouped convolutions, batch norms, ReLU6, hard swish; cross entropy",
        build=mobile,
        optimizer=rmsprop,
        trained_by="RMSprop with momentum",
        loss=cross_entropy,
        draw=waves,
    ),
    "language": Entry(
        about="causal transformer, dropout of 0.1, embedding tied to the logits; cross entropy of the next word",
        build=LanguageModel,
        optimizer=adamw,
        trained_by="AdamW in two groups",
        loss=next_word,
        draw=sentences,
    ),
    "vision": Entry(
        about="vision transformer, attention by hand, GELU, token of the class; smoothed cross entropy",
        build=Vision,
        optimizer=adam_clipped,
        trained_by="Adam, gradients clipped",
        loss=smoothed,
        draw=waves,
    ),
    "reader": Entry(
        about="embedding, two LSTM layers in both directions; cross entropy",
        build=Reader,
        optimizer=adam_clipped,
        trained_by="Adam, gradients clipped",
        loss=cross_entropy,
        draw=topics,
    ),
    "forecast": Entry(
        about="normed weight, dilated convolution over time, GRU cell called 8 times; Huber's loss",
        build=Forecast,
        optimizer=amsgrad,
        trained_by="Adam with AMSGrad",
        loss=huber,
        draw=signals,
    ),
    "unet": Entry(
        about="transposed convolution, bilinear upsampling, joined skips, in-place ReLU; mask and overlap losses",
        build=UNet,
        optimizer=adam,
        trained_by="Adam",
        loss=overlap,
        draw=discs,
    ),
    "group norms": Entry(
        about="group and instance norms, LeakyReLU, PReLU, softplus, reflecting padding; cross entropy",
        build=group_norms,
        optimizer=nesterov,
        trained_by="SGD, Nesterov's momentum",
        loss=cross_entropy,
        draw=waves,
    ),
    "gated": Entry(
        about="squeeze and excitation, gates of places, SiLU, batch norms; cross entropy",
        build=gated,
        optimizer=adamw,
        trained_by="AdamW in two groups",
        loss=cross_entropy,
        draw=waves,
    ),
    "recommender": Entry(
        about="embeddings, bags of words, products of vectors; binary cross entropy",
        build=Recommender,
        optimizer=adagrad,
        trained_by="Adagrad",
        loss=likes,
        draw=ratings,
    ),
    "autoencoder": Entry(
        about="variational, noise in the batch, strided and transposed convolutions, ELU; image and divergence losses",
        build=Autoencoder,
        optimizer=adam,
        trained_by="Adam",
        loss=evidence,
        draw=discs_and_noise,
    ),
}
