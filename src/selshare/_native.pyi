"""Compiled kernels: raw pointers in, GIL released, thread count passed in."""

def batched_eigh_f32(matrices: int, values: int, vectors: int, count: int, n: int, threads: int) -> int: ...
def batched_eigh_f64(matrices: int, values: int, vectors: int, count: int, n: int, threads: int) -> int: ...

# The CUDA solvers, run on the CPU to test them.
def block_eigh_f32(
    matrices: int, values: int, vectors: int, sweeps: int, count: int, n: int, backwards: bool
) -> None: ...
def block_eigh_f64(
    matrices: int, values: int, vectors: int, sweeps: int, count: int, n: int, backwards: bool
) -> None: ...
def block_left_svd_f32(
    matrices: int, values: int, vectors: int, right: int, sweeps: int, count: int, n: int, m: int, backwards: bool
) -> None: ...
def block_left_svd_f64(
    matrices: int, values: int, vectors: int, right: int, sweeps: int, count: int, n: int, m: int, backwards: bool
) -> None: ...
def dropout_f32(source: int, result: int, count: int, key: int, threshold: int, threads: int) -> None: ...
def dropout_f64(source: int, result: int, count: int, key: int, threshold: int, threads: int) -> None: ...
def sketch_gradients_f32(
    delta: int,
    branch_stride: int,
    sample_stride: int,
    output_stride: int,
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
    output_stride: int,
    projected: int,
    accumulator: int,
    branches: int,
    samples: int,
    outputs: int,
    per_output: int,
    scale: float,
    threads: int,
) -> None: ...

# Layers of a bank. inputs: data, strides of S, B and I, data of source (0: none), S, I, rectify. delta: data, strides
# of G, B and O. sizes: G, B, O.
def stacked_linear_f32(
    inputs: list[int], sizes: tuple[int, int, int], weight: int, bias: int, outputs: int, threads: int
) -> None: ...
def stacked_linear_f64(
    inputs: list[int], sizes: tuple[int, int, int], weight: int, bias: int, outputs: int, threads: int
) -> None: ...
def stacked_linear_backward_f32(
    delta: list[int],
    inputs: list[int],
    sizes: tuple[int, int, int],
    weight: int,
    grad_inputs: int,
    grad_bias: int,
    threads: int,
) -> None: ...
def stacked_linear_backward_f64(
    delta: list[int],
    inputs: list[int],
    sizes: tuple[int, int, int],
    weight: int,
    grad_inputs: int,
    grad_bias: int,
    threads: int,
) -> None: ...
def store_gradient_f32(
    delta: list[int], inputs: list[int], sizes: tuple[int, int, int], target: int, threads: int
) -> None: ...
def store_gradient_f64(
    delta: list[int], inputs: list[int], sizes: tuple[int, int, int], target: int, threads: int
) -> None: ...
def capture_gradients_f32(
    delta: list[int], inputs: list[int], sizes: tuple[int, int, int], accumulator: int, scale: float, threads: int
) -> None: ...
def capture_gradients_f64(
    delta: list[int], inputs: list[int], sizes: tuple[int, int, int], accumulator: int, scale: float, threads: int
) -> None: ...
def fused_sgd_step_f32(
    delta: list[int],
    inputs: list[int],
    sizes: tuple[int, int, int],
    state: tuple[int, int, int],
    numbers: tuple[float, float, float, float, float],
    nesterov: bool,
    maximize: bool,
    threads: int,
) -> None: ...
def fused_sgd_step_f64(
    delta: list[int],
    inputs: list[int],
    sizes: tuple[int, int, int],
    state: tuple[int, int, int],
    numbers: tuple[float, float, float, float, float],
    nesterov: bool,
    maximize: bool,
    threads: int,
) -> None: ...
def fused_adam_step_f32(
    delta: list[int],
    inputs: list[int],
    sizes: tuple[int, int, int],
    state: tuple[int, int, int, int],
    numbers: tuple[float, float, float, float, float, float, float, float],
    decoupled: bool,
    maximize: bool,
    threads: int,
) -> None: ...
def fused_adam_step_f64(
    delta: list[int],
    inputs: list[int],
    sizes: tuple[int, int, int],
    state: tuple[int, int, int, int],
    numbers: tuple[float, float, float, float, float, float, float, float],
    decoupled: bool,
    maximize: bool,
    threads: int,
) -> None: ...

# Distances, nearest neighbours and spanning trees of points, see kernels/reachability and kernels/spanning_tree.
def squared_pairs(
    values: int,
    d: int,
    sum: bool,
    a: int,
    b: int,
    count: int,
    out: int,
    threads: int,
) -> None: ...
def squared_matrix(
    values: int,
    n: int,
    d: int,
    sum: bool,
    out: int,
    threads: int,
) -> None: ...
def kth_smallest(
    matrix: int,
    n: int,
    k: int,
    out: int,
    threads: int,
) -> None: ...
def keep_nearest_f32(
    products: int,
    rows: int,
    columns: int,
    row: int,
    column: int,
    half: int,
    values: int,
    indices: int,
    last: int,
    kept: int,
    threads: int,
) -> None: ...
def keep_nearest_f64(
    products: int,
    rows: int,
    columns: int,
    row: int,
    column: int,
    half: int,
    values: int,
    indices: int,
    last: int,
    kept: int,
    threads: int,
) -> None: ...
def pairs_above_f32(
    products: int,
    rows: int,
    columns: int,
    column: int,
    half: int,
    points: int,
    cut: int,
    a: int,
    b: int,
    capacity: int,
    threads: int,
) -> int: ...
def pairs_above_f64(
    products: int,
    rows: int,
    columns: int,
    column: int,
    half: int,
    points: int,
    cut: int,
    a: int,
    b: int,
    capacity: int,
    threads: int,
) -> int: ...
def prim(
    matrix: int,
    cores: int,
    n: int,
    tree: int,
) -> None: ...
def forest(
    n: int,
    a: int,
    b: int,
    weights: int,
    count: int,
    chosen: int,
    leaves: int,
    heights: int,
) -> int: ...
def crossing_pairs_f32(
    products: int,
    rows: int,
    columns: int,
    row: int,
    column: int,
    half: int,
    norms: int,
    cores: int,
    heights: int,
    within: int,
    beyond: int,
    shifted: int,
    sum: bool,
    a: int,
    b: int,
    capacity: int,
    threads: int,
) -> int: ...
def crossing_pairs_f64(
    products: int,
    rows: int,
    columns: int,
    row: int,
    column: int,
    half: int,
    norms: int,
    cores: int,
    heights: int,
    within: int,
    beyond: int,
    shifted: int,
    sum: bool,
    a: int,
    b: int,
    capacity: int,
    threads: int,
) -> int: ...
def tt_svd_f32(
    tensors: int,
    count: int,
    modes: list[int],
    caps: list[int],
    allowed: float,
    cores: list[int],
    ranks: int,
    threads: int,
) -> int: ...
def tt_svd_f64(
    tensors: int,
    count: int,
    modes: list[int],
    caps: list[int],
    allowed: float,
    cores: list[int],
    ranks: int,
    threads: int,
) -> int: ...
def set_subnormals_as_zero(zero: bool, threads: int) -> bool: ...
