"""Optimizers that update a bank's weights without forming their gradient; for all else they are torch's.

:class:`BankSGD`, :class:`BankAdam` and :class:`BankAdamW` take the place of ``torch.optim.SGD``, ``Adam`` and
``AdamW``: same arguments, same state, same results to rounding.
"""

from .adam import BankAdam, BankAdamW
from .sgd import BankSGD

__all__ = ["BankAdam", "BankAdamW", "BankSGD"]
