"""Trunks for images and vectors: the layers before the fork, ending in the shared representation."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

VGG_16 = cfgs["D"]  # its thirteen convolutions; building torchvision's whole network would allocate 500 MB more
VGG_WEIGHTS = "vgg16-397923af.pth"  # torchvision's name for VGG-16's ImageNet weights
VGG_WEIGHTS_URL = f"https://download.pytorch.org/models/{VGG_WEIGHTS}"


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


def three_layer_trunk() -> nn.Sequential:
    """Return the OmniGlot trunk of Strezoski et al.: three convolutions, ``(B, 1, 28, 28)`` → ``(B, 300)``.

    The paper gives the number of layers and both shapes; 32 and 64 filters of 5×5, the last layer of 4×4 that sees
    the whole of what is left, and the batch normalisation after each are *ours*.
    """
    return nn.Sequential(
        *_convolution(1, 32, 5), nn.MaxPool2d(2), *_convolution(32, 64, 5), nn.MaxPool2d(2), *_convolution(64, 300, 4),
        nn.Flatten(),
    )  # fmt: skip


def letter_trunk() -> nn.Sequential:
    """Return a trunk of three convolutions for rendered letters, ``(B, 1, 28, 28)`` → ``(B, 2048)``; *ours*.

    The width is that of the paper's OmniArt and CUB-200 set-ups, whose images and pretrained features are others.
    """
    layers = [
        layer
        for inputs, outputs in ((1, 32), (32, 64), (64, 128))
        for layer in (*_convolution(inputs, outputs, 3, padding=1), nn.MaxPool2d(2, ceil_mode=True))
    ]
    return nn.Sequential(*layers, nn.Flatten())


def vgg_trunk() -> nn.Sequential:
    """Return the CIFAR-10 trunk of Strezoski et al.: VGG-16 from scratch, ``(B, 3, 32, 32)`` → ``(B, 1024)``.

    Its thirteen convolutions end in 512 averages; a fully connected layer widens them to the paper's 1,024. That
    layer, and the batch normalisation without which so deep a network hardly starts at the paper's rate, are *ours*.
    """
    features: nn.Sequential = make_layers(VGG_16, batch_norm=True)
    for layer in features:
        if isinstance(layer, nn.Conv2d):  # as torchvision initialises VGG
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.get_parameter("bias"))
    return nn.Sequential(
        OrderedDict(
            features=features,
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            linear=nn.Linear(512, 1024),
            relu=nn.ReLU(),
        )
    )


def pretrained_vgg_trunk(weights: str | os.PathLike[str] | None = None) -> nn.Sequential:
    """Return the CUB-200 trunk of Strezoski et al.: VGG-16 trained on ImageNet, ``(B, 3, H, W)`` → ``(B, 2048)``.

    The convolutions' 512 maps are averaged in 2×2 fields, which gives the paper's 2,048 features; *ours*.

    Parameters
    ----------
    weights
        File of torchvision's VGG-16 weights. Without it: where ``torch.hub`` keeps them. They are never downloaded.

    Raises
    ------
    FileNotFoundError
        Where there is no such file; says how to get it.
    ValueError
        Where the file holds other weights.
    """
    file = vgg_weights(weights)
    features: nn.Sequential = make_layers(VGG_16, batch_norm=False)
    state = torch.load(file, map_location="cpu", weights_only=True)
    prefix = "features."
    kept = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    try:
        features.load_state_dict(kept)
    except RuntimeError as error:
        raise ValueError(
            f"{file} does not hold torchvision's VGG-16 weights; get them from {VGG_WEIGHTS_URL}."
        ) from error
    return nn.Sequential(OrderedDict(features=features, pool=nn.AdaptiveAvgPool2d(2), flatten=nn.Flatten()))


def vgg_weights(weights: str | os.PathLike[str] | None = None) -> Path:
    """Return the file of VGG-16's ImageNet weights.

    Raises
    ------
    FileNotFoundError
        Where it is not there; says how to get it.
    """
    file = Path(torch.hub.get_dir()) / "checkpoints" / VGG_WEIGHTS if weights is None else Path(weights).expanduser()
    if not file.is_file():
        raise FileNotFoundError(
            f"VGG-16's ImageNet weights are not at {file}; download {VGG_WEIGHTS_URL} there, or name the file in "
            "weights."
        )
    return file


def mlp_trunk(features: int, shared_features: int) -> nn.Sequential:
    """Return one fully connected layer with ReLU: ``(B, ...)`` of ``features`` values → ``(B, shared_features)``."""
    return nn.Sequential(OrderedDict(flatten=nn.Flatten(), linear=nn.Linear(features, shared_features), relu=nn.ReLU()))


def _convolution(inputs: int, outputs: int, kernel: int, padding: int = 0) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, kernel, padding=padding), nn.BatchNorm2d(outputs), nn.ReLU()
