"""Give a parameter data of another shape while it stays the same object.

Optimizers, schedulers, hooks and averages hold on to parameters by identity; a merge that put new ``Parameter``
objects in place would leave them training the old ones.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def set_parameter_data(parameter: nn.Parameter, data: Tensor) -> None:
    """Replace ``parameter``'s data by ``data``, of any shape, and drop its gradient.

    ``data`` is used as it is, not copied. A graph that is still alive (a loss of an earlier step, say) keeps the
    old data and stays usable.

    Raises
    ------
    TypeError
        If dtype or device differ: an optimizer's state would no longer fit.
    """
    if data.dtype != parameter.dtype or data.device != parameter.device:
        raise TypeError(
            f"the new data is {data.dtype} on {data.device}, the parameter {parameter.dtype} on {parameter.device}; "
            "convert the data first."
        )
    parameter.grad = None
    # An alive graph also keeps the node that accumulates the parameter's gradient, which remembers the old shape and
    # would refuse the next gradient. Autograd drops that node when the dtype changes, so it changes for a moment.
    other = torch.float16 if parameter.dtype != torch.float16 else torch.float32
    parameter.data = torch.empty(0, dtype=other, device=parameter.device)
    parameter.data = data.detach()
