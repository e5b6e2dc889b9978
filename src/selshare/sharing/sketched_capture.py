"""Sketched capture: an epoch's gradients by their random projections, T×k numbers instead of T×out×in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.utils.hooks import RemovableHandle

from ..kernels import SketchProjection, sketch_gradients
from ..model import MultiTaskModel
from ..model.lazy_gradient import factors_of
from .capture import CAPTURES, Capture, GradientCapture, require_branches, require_gradient, unscaled


class SketchedCapture:
    """The sum of an epoch's gradients of the bank's first weight, projected on fixed random directions.

    Distances between branches are kept to a relative error that falls as ``1/√size``; see
    :func:`selshare.kernels.sketch_gradients` for the bound. The directions are drawn once and stay for all epochs.

    With the optimizers of :mod:`selshare.optim` the gradient is never formed: the sketch meets its two factors, the
    error δ and the shared representation A. With any other optimizer the gradient is in memory anyway and is
    projected from there.

    Parameters
    ----------
    size
        Numbers per branch; rounded down to a multiple of the first layer's outputs.
    seed
        Of the directions.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        self._size, self._seed = size, seed
        self._model: MultiTaskModel | None = None
        self._projection: SketchProjection | None = None
        self._sketches: Tensor | None = None
        self._hook: RemovableHandle | None = None
        self._scaler: GradScaler | None = None

    def start(
        self, model: MultiTaskModel, optimizers: Sequence[torch.optim.Optimizer] = (), scaler: GradScaler | None = None
    ) -> None:
        """Begin to sketch. The optimizers do not matter here.

        Raises
        ------
        ValueError
            If the bank's first weight takes no gradient, or the sketch has fewer numbers than the layer outputs.
        """
        weight = model.bank.first_weight
        require_gradient(weight)
        outputs, inputs = weight.flatten(2).shape[1:]
        dtype = torch.promote_types(weight.dtype, torch.float32)
        if self._size < outputs:
            raise ValueError(
                f"sketch_size is {self._size}, but the first layer of a branch has {outputs} outputs and the sketch "
                "needs at least one number for each; raise sketch_size."
            )
        self._model, self._scaler = model, scaler
        self._projection = SketchProjection(outputs, inputs, self._size, self._seed, dtype, weight.device)
        self._sketches = torch.zeros(len(weight), self._projection.size, dtype=dtype, device=weight.device)
        self._hook = weight.register_hook(self._accumulate)

    def gradients(self) -> Tensor:
        """The sketches so far, ``(G, size / O, O)``; a view."""
        _, projection, sketches = self._started()
        return sketches.view(len(sketches), projection.per_output, projection.outputs)

    def reset(self) -> None:
        """Zero the sketches and take on the bank's number of branches."""
        model, projection, sketches = self._started()
        branches = model.bank.branches
        if branches > len(sketches):
            sketches = sketches.new_empty(branches, projection.size)
        self._sketches = sketches[:branches].zero_()

    def stop(self) -> None:
        """Remove the hook and free the memory."""
        if self._hook is not None:
            self._hook.remove()
        self._model = self._projection = self._sketches = self._hook = self._scaler = None

    def _accumulate(self, gradient: Tensor) -> None:
        """The hook: the sketch of one backward's gradient is added."""
        model, projection, sketches = self._started()
        if not model.training:
            return
        require_branches(gradient, sketches)
        gradient = unscaled(gradient, self._scaler)
        factors = factors_of(gradient)
        if factors is not None and len(factors.inputs) == 1 and factors.delta.dtype == sketches.dtype:
            # NaN is looked for once an epoch, when the sketches are embedded.
            sketch_gradients(factors.delta, factors.inputs[0], sketches, projection, check_finite=False)
        else:
            formed = gradient.detach().flatten(2).to(sketches.dtype)
            directions = projection.directions.unflatten(0, (projection.per_output, projection.outputs))
            sketches.add_(torch.einsum("goh,joh->gjo", formed, directions).flatten(1))

    def _started(self) -> tuple[MultiTaskModel, SketchProjection, Tensor]:
        """Model, projection and sketches, once started."""
        if self._model is None or self._projection is None or self._sketches is None:
            raise RuntimeError("the capture has not been started; call start(model, optimizers) first.")
        return self._model, self._projection, self._sketches


def keeps_whole(numbers: int, branches: int, size: int, above: int) -> bool:
    """Whether gradients of so many ``numbers`` are kept as they are: no more than ``above``, or than their sketches."""
    return numbers <= max(above, size * branches)


class WholeOrSketchedCapture:
    """``capture="sketch"``: whole gradients where they are small, else their sketches.

    Few branches have little memory to save and, close to ties, most to lose: a sketch's error of some percent in a
    distance can turn a label. So whole gradients are kept (:class:`GradientCapture`) as long as they are not more
    numbers than ``above``, or no more than their sketch would be. Decided at ``start``, for the branches there are.

    Parameters
    ----------
    size, seed
        Of the :class:`SketchedCapture`.
    above
        Numbers of all branches together, ``G·O·H``; 0 to sketch whatever the size.
    """

    def __init__(self, size: int, above: int, seed: int = 0) -> None:
        self._size, self._above, self._seed = size, above, seed
        self._capture: Capture | None = None

    @property
    def sketches(self) -> bool:
        """Whether it keeps sketches, once started."""
        return isinstance(self._started(), SketchedCapture)

    def start(
        self, model: MultiTaskModel, optimizers: Sequence[torch.optim.Optimizer] = (), scaler: GradScaler | None = None
    ) -> None:
        """Choose, and begin; raises what the chosen capture raises."""
        weight = model.bank.first_weight
        whole = keeps_whole(weight.numel(), len(weight), self._size, self._above)
        capture: Capture = GradientCapture() if whole else SketchedCapture(self._size, self._seed)
        capture.start(model, optimizers, scaler)
        self._capture = capture

    def gradients(self) -> Tensor:
        """The gradients, ``(G, O, H)``, or the sketches, ``(G, size / O, O)``; a view."""
        return self._started().gradients()

    def reset(self) -> None:
        """Begin the next epoch."""
        self._started().reset()

    def stop(self) -> None:
        """End for good."""
        if self._capture is not None:
            self._capture.stop()
            self._capture = None

    def _started(self) -> Capture:
        """The chosen capture, once started."""
        if self._capture is None:
            raise RuntimeError("the capture has not been started; call start(model, optimizers) first.")
        return self._capture


CAPTURES["sketch"] = lambda settings: WholeOrSketchedCapture(
    settings["sketch_size"], settings["sketch_above"], settings["seed"]
)
