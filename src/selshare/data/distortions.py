"""Small random distortions, as of a pen held by another hand."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional

ROTATION = 7.0  # standard deviations: degrees
SHEAR = 0.08
STRETCH = 0.08  # of the logarithm of each side
SHIFT = 0.04  # of half an image
WARP = 0.035  # of half an image, at each of 4×4 points
CHUNK = 2048  # images at a time: bounds the memory of the sampling grid


def distort(drawings: Tensor, chosen: Tensor, generator: Generator) -> Tensor:
    """Return the chosen drawings rotated, sheared, stretched, shifted and gently warped, at half their size.

    Parameters
    ----------
    drawings
        ``(G, 2s, 2s)`` uint8, 255 is ink.
    chosen
        ``(N,)`` indices of drawings, repeated or not.
    generator
        Draws the distortions, each image its own. Displacements are normal, cut off at two deviations.

    Returns
    -------
    Tensor
        ``(N, 1, s, s)`` float32 between 0 and 1.

    Notes
    -----
    Time O((G + N)·s²); memory of one chunk beside drawings and images.
    """
    spread = torch.randn(len(chosen), 6, generator=generator).clamp(-2, 2)
    warp = torch.randn(len(chosen), 2, 4, 4, generator=generator).clamp(-2, 2) * WARP
    soft = _softened(drawings)
    chunks = zip(chosen.split(CHUNK), spread.split(CHUNK), warp.split(CHUNK), strict=True)
    return torch.cat([_sampled(soft[numbers], *knobs) for numbers, *knobs in chunks])


def _softened(drawings: Tensor) -> Tensor:
    """Return ``(G, 1, 2s, 2s)``: pixels averaged 1:2:1 both ways, so that every other one can be left out."""
    padded = functional.pad(drawings.unsqueeze(1).float().div_(255), (1, 1, 1, 1))
    across = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    return (across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]) / 16


def _sampled(soft: Tensor, spread: Tensor, warp: Tensor) -> Tensor:
    """Return ``(n, 1, s, s)``, sampled from ``(n, 1, 2s, 2s)`` where the distortion says."""
    size = [soft.shape[-2] // 2, soft.shape[-1] // 2]
    grid = functional.affine_grid(_affine(spread), [len(soft), 1, *size], align_corners=False)
    offsets = functional.interpolate(warp, size, mode="bicubic", align_corners=True)
    return functional.grid_sample(soft, grid + offsets.movedim(1, -1), align_corners=False)


def _affine(spread: Tensor) -> Tensor:
    """Return ``(n, 2, 3)`` matrices from six standard normal numbers each."""
    angle = torch.deg2rad(spread[:, 0] * ROTATION)
    shear = spread[:, 1] * SHEAR
    wide, high = (torch.exp(spread[:, 2:4] * STRETCH)).unbind(1)
    rotation = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2)
    skew = torch.stack([wide, shear, torch.zeros_like(wide), high], 1).view(-1, 2, 2)
    return torch.cat([rotation @ skew, (spread[:, 4:6] * SHIFT).unsqueeze(2)], 2)
