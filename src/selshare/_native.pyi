"""Compiled kernels: raw pointers in, GIL released, thread count passed in."""

def batched_eigh_f32(matrices: int, values: int, vectors: int, count: int, n: int, threads: int) -> int: ...
def batched_eigh_f64(matrices: int, values: int, vectors: int, count: int, n: int, threads: int) -> int: ...
def sketch_gradients_f32(
    delta: int,
    branch_stride: int,
    sample_stride: int,
    projected: int,
    accumulator: int,
    branches: int,
    samples: int,
    outputs: int,
    per_output: int,
    scale: float,
    threads: int,
) -> None: ...
def sketch_gradients_f64(
    delta: int,
    branch_stride: int,
    sample_stride: int,
    projected: int,
    accumulator: int,
    branches: int,
    samples: int,
    outputs: int,
    per_output: int,
    scale: float,
    threads: int,
) -> None: ...
