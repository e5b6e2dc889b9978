// One block, one matrix of n rows and m columns: one-sided Jacobi (Hestenes 1958) turns the rows until they are
// orthogonal: vectorsᵀ matrix = diag(values) zᵀ. The rotations alone make up the vectors, so these are orthonormal to
// working precision whatever the rank. Nothing is squared but the rows' norms: singular values are accurate to working
// precision relative to the largest, where the eigenvalues of the Gram matrix lose half of the digits.
#pragma once

#include "cuda/jacobi.hpp"

namespace selshare::blocks {

template <class T>
struct SvdSpace {
    T* work;     // n rows of row_stride(m)
    T* rows;     // n rows of row_stride(n): row i becomes a left singular vector
    T* scratch;  // 2 n
    int* order;  // n
};

// Items of T beside `work` and `rows`; `order` is counted as T.
SELSHARE_SHARED int svd_items(int n) { return 3 * n; }
SELSHARE_SHARED int svd_row_items(int n) { return n * row_stride(n); }
SELSHARE_SHARED std::int64_t svd_work_items(int n, int m) { return static_cast<std::int64_t>(n) * row_stride(m); }

template <class T>
SELSHARE_SHARED SvdSpace<T> svd_space(T* items, T* work, T* rows, int n) {
    return {work, rows, items, reinterpret_cast<int*>(items + 2 * n)};
}

// Products of two rows of at most this, squared, count as zero where the largest entry is 1 or more: both rows are
// rounding noise then, which need not be orthogonal.
template <class T>
SELSHARE_SHARED T noise_square() {
    return Limits<T>::epsilon * Limits<T>::epsilon * Limits<T>::epsilon * Limits<T>::epsilon;
}

// The number of sweeps until all rows of at.work are orthogonal, or NOT_CONVERGED. A warp takes a pair.
template <class T>
SELSHARE_BLOCK int sweep_until_orthogonal(const Block& block, const SvdSpace<T>& at, int n, int m) {
    const T relative = root(static_cast<T>(m)) * Limits<T>::epsilon;
    const int players = even(n);
    for (int sweep = 1; sweep <= MOST_SWEEPS; ++sweep) {
        bool turned = false;
        for (int round = 0; round < players - 1; ++round)
            turned |= block.any_by_warps(players / 2, [&](int index, const Warp& warp) {
                const Pair pair = pair_of(index, round, players);
                if (pair.q >= n) return false;
                T *x = at.work + static_cast<std::int64_t>(pair.p) * row_stride(m);
                T *y = at.work + static_cast<std::int64_t>(pair.q) * row_stride(m);
                const Gram<T> gram = warp.gram(x, y, m);
                const auto by = jacobi_turn<T>(gram.pp, gram.qq, gram.pq, relative, noise_square<T>());
                if (by.tangent == 0) return false;
                T *u = at.rows + pair.p * row_stride(n), *v = at.rows + pair.q * row_stride(n);
                warp.each(m, [&](int k) { turn(by, x[k], y[k]); });
                warp.each(n, [&](int k) { turn(by, u[k], v[k]); });
                return true;
            });
        if (!turned) return sweep;
    }
    return NOT_CONVERGED;
}

// The singular values of matrix (n x m), descending, padded with zeros where m < n, and its left singular vectors as
// columns (n x n), the largest-magnitude entry of each positive. Where `right` is not null: the right singular vectors
// as rows (n x m), zero where the singular value is; they are orthogonal however small the values. Returns the number
// of sweeps or NOT_CONVERGED; ends with a barrier.
template <class T>
SELSHARE_BLOCK int block_left_svd(const Block& block, const T* matrix, T* values, T* vectors, T* right,
                                  const SvdSpace<T>& at, int n, int m) {
    T *found = at.scratch, *signs = at.scratch + n;
    const auto row = [&](int i) { return at.work + static_cast<std::int64_t>(i) * row_stride(m); };
    block.each(n, m, [&](int i, int j) { row(i)[j] = matrix[static_cast<std::int64_t>(i) * m + j]; });
    block.each(n, n, [&](int i, int j) { at.rows[i * row_stride(n) + j] = i == j; });
    block.barrier();
    block.each(n, [&](int i) { found[i] = largest_of(row(i), m); });
    block.barrier();
    const T largest = largest_of(found, n);
    const PowerScale<T> scale = power_scale(largest);
    block.each(n, m, [&](int i, int j) { row(i)[j] *= scale.down; });
    block.barrier();
    const int sweeps = sweep_until_orthogonal(block, at, n, m);
    block.any_by_warps(n, [&](int i, const Warp& warp) {
        const T length = root(warp.gram(row(i), row(i), m).pp);
        if (warp.first()) found[i] = length;
        return false;
    });
    store_sorted(block, found, scale.up, at.rows, n, at.order, signs, values, vectors);
    if (right != nullptr) {
        block.each(n, m, [&](int i, int j) {
            const T length = found[at.order[i]];
            right[static_cast<std::int64_t>(i) * m + j] = length > 0 ? signs[i] * row(at.order[i])[j] / length : T(0);
        });
        block.barrier();
    }
    return sweeps;
}

}  // namespace selshare::blocks
