"""The checks that capture and the fused step have in common."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..checks import require_dimensions, require_float, require_tensor, sums_of


def require_bank_shapes(delta: Tensor, shared: Tensor, state: Mapping[str, Tensor]) -> None:
    """Check ``delta (G, B, O)``, ``shared (B, H)`` or ``(G, B, H)``, and every ``state`` tensor ``(G, O, H)``.

    All are float32 or all float64; or ``delta`` and ``shared`` are float16 or bfloat16 and the state float32.

    Raises
    ------
    TypeError, ValueError
        See :func:`~selshare.kernels.capture_gradients`; the sentence names the tensor.
    """
    require_dimensions(delta, "(G, B, O)", "delta")
    for name, tensor in {"shared": shared, **state}.items():
        require_tensor(tensor, name)
    if shared.ndim not in (2, 3):
        raise ValueError(f"shared must have shape (B, H) or (G, B, H); it has shape {tuple(shared.shape)}.")
    require_float(delta, "delta", halves=True)
    kept = sums_of(delta.dtype)
    branches, samples, outputs = delta.shape
    leading = (branches, samples) if shared.ndim == 3 else (samples,)
    if shared.shape[:-1] != leading:
        raise ValueError(
            f"shared has shape {tuple(shared.shape)}, but delta {tuple(delta.shape)} is of {branches} branches and "
            f"{samples} samples; pass the layer's input of the same batch."
        )
    expected = (branches, outputs, shared.shape[-1])
    for name, tensor in {"shared": shared, **state}.items():
        wanted = delta.dtype if name == "shared" else kept
        if tensor.dtype != wanted or tensor.device != delta.device:
            raise TypeError(
                f"{name} is {tensor.dtype} on {tensor.device}, delta {delta.dtype} on {delta.device}; {name} must be "
                f"{wanted} there."
            )
    for name, tensor in state.items():
        if tensor.shape != expected:
            raise ValueError(f"{name} must have shape {expected} (G, O, H); it has shape {tuple(tensor.shape)}.")
        if not tensor.is_contiguous():
            raise ValueError(f"{name} is changed in place and must be contiguous; call .contiguous() on it first.")
