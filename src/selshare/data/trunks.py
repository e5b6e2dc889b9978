"""Trunks for images and vectors: the layers before the fork, ending in the shared representation."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


def conv_trunk(kernel: int = 5, padding: int = 0) -> nn.Sequential:
    """Return the MNIST trunk of Strezoski et al. (arXiv 1904.03011) for one-channel images.

    20 and 40 filters, batch normalisation, max-pooling by 2 after each convolution. With the defaults a
    ``(B, 1, 28, 28)`` image becomes ``(B, 640)``; with ``kernel=3, padding=1`` an 8×8 image becomes ``(B, 160)``.
    The paper's 640 features imply a pooling after each convolution; where the normalisation sits is *ours* (after the
    second).
    """
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 20, kernel, padding=padding),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(20, 40, kernel, padding=padding),
            norm=nn.BatchNorm2d(40),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
        )
    )


def mlp_trunk(features: int, shared_features: int) -> nn.Sequential:
    """Return one fully connected layer with ReLU: ``(B, ...)`` of ``features`` values → ``(B, shared_features)``."""
    return nn.Sequential(OrderedDict(flatten=nn.Flatten(), linear=nn.Linear(features, shared_features), relu=nn.ReLU()))
