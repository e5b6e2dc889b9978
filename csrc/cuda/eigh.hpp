// One block, one symmetric matrix: two-sided Jacobi. All pairs of a round are turned at once. The entries of two
// pairs form a 2 x 2 block that nobody else touches, so a round is: all turns, a barrier, all blocks and all
// vectors, a barrier. The lower triangle is packed: it takes n²/2 words beside the n² of the vectors, and since
// triangular numbers are distinct modulo powers of two, a column of it lies in different banks.
#pragma once

#include "cuda/jacobi.hpp"

namespace selshare::blocks {

// The arrays that the solver works on. Only `rows` is large enough to be anywhere but in shared memory.
template <class T>
struct EighSpace {
    T* lower;        // triangle(even(n)) entries: row i starts at triangle(i)
    T* rows;         // n rows of row_stride(n): row i becomes an eigenvector
    Turn<T>* turns;  // even(n) / 2
    T* scratch;      // 2 n
    int* order;      // n
};

SELSHARE_SHARED int triangle(int i) { return i * (i + 1) / 2; }

// Items of T beside `rows`; `order` is counted as T.
SELSHARE_SHARED int eigh_items(int n) { return triangle(even(n)) + 3 * (even(n) / 2) + 3 * n; }
SELSHARE_SHARED int eigh_row_items(int n) { return n * row_stride(n); }

template <class T>
SELSHARE_SHARED EighSpace<T> eigh_space(T* items, T* rows, int n) {
    T* turns = items + triangle(even(n));
    T* scratch = turns + 3 * (even(n) / 2);
    return {items, rows, reinterpret_cast<Turn<T>*>(turns), scratch, reinterpret_cast<int*>(scratch + 2 * n)};
}

template <class T>
SELSHARE_SHARED T& entry(T* lower, int i, int j) {
    return i > j ? lower[triangle(i) + j] : lower[triangle(j) + i];
}

// Off-diagonal entries of at most this, squared, count as zero where the largest entry is 1 or more: all of them
// together move no eigenvalue by more than an eighth of the rounding unit of the matrix's norm.
template <class T>
SELSHARE_SHARED T negligible_square(int n) {
    const T entry = Limits<T>::epsilon / static_cast<T>(8 * n);
    return entry * entry;
}

// Finds the turn of a pair and applies it to the pair's own three entries. Whether it is one.
template <class T>
SELSHARE_SHARED bool turn_pair(T* lower, Pair pair, T negligible, Turn<T>& by) {
    T &pp = lower[triangle(pair.p) + pair.p], &qq = lower[triangle(pair.q) + pair.q];
    T& pq = lower[triangle(pair.q) + pair.p];
    by = jacobi_turn<T>(pp, qq, pq, Limits<T>::epsilon / 2, negligible);
    if (by.tangent == 0) return false;
    pp -= by.tangent * pq;
    qq += by.tangent * pq;
    pq = 0;
    return true;
}

// Applies the turns of two pairs to the four entries they have in common.
template <class T>
SELSHARE_SHARED void turn_block(T* lower, Pair a, Pair b, const Turn<T>& by_a, const Turn<T>& by_b) {
    T &pp = entry(lower, a.p, b.p), &pq = entry(lower, a.p, b.q);
    T &qp = entry(lower, a.q, b.p), &qq = entry(lower, a.q, b.q);
    T w = pp, x = pq, y = qp, z = qq;
    turn(by_a, w, y);
    turn(by_a, x, z);
    turn(by_b, w, x);
    turn(by_b, y, z);
    pp = w, pq = x, qp = y, qq = z;
}

// Applies a round's turns to all entries that belong to two different pairs.
template <class T>
SELSHARE_BLOCK void turn_blocks(const Block& block, const EighSpace<T>& at, int round, int players) {
    const int pairs = players / 2;
    // Row r of the strict upper triangle of pairs, and row pairs - 1 - r behind it, fill one row of the loop.
    block.each((pairs + 1) / 2, pairs, [&](int row, int column) {
        const bool folded = column <= row;
        const int a = folded ? pairs - 1 - row : row, b = folded ? pairs - 1 - column : column;
        if (a == b || (folded && a == row)) return;
        const Turn<T> by_a = at.turns[a], by_b = at.turns[b];
        if (by_a.tangent == 0 && by_b.tangent == 0) return;
        turn_block(at.lower, pair_of(a, round, players), pair_of(b, round, players), by_a, by_b);
    });
}

template <class T>
SELSHARE_BLOCK void turn_rows(const Block& block, const EighSpace<T>& at, int round, int players, int n) {
    block.each(players / 2, n, [&](int index, int k) {
        const Turn<T> by = at.turns[index];
        if (by.tangent == 0) return;
        const Pair pair = pair_of(index, round, players);
        turn(by, at.rows[pair.p * row_stride(n) + k], at.rows[pair.q * row_stride(n) + k]);
    });
}

// Diagonalises at.lower; the number of sweeps, or NOT_CONVERGED. An odd n plays with one more row of zeros, which
// never turns.
template <class T>
SELSHARE_BLOCK int sweep_until_diagonal(const Block& block, const EighSpace<T>& at, int n) {
    const T negligible = negligible_square<T>(n);
    const int players = even(n);
    for (int sweep = 1; sweep <= MOST_SWEEPS; ++sweep) {
        bool turned = false;
        for (int round = 0; round < players - 1; ++round) {
            const bool here = block.any(players / 2, [&](int index) {
                return turn_pair(at.lower, pair_of(index, round, players), negligible, at.turns[index]);
            });
            if (!here) continue;
            turned = true;
            turn_blocks(block, at, round, players);
            turn_rows(block, at, round, players, n);
            block.barrier();
        }
        if (!turned) return sweep;
    }
    return NOT_CONVERGED;
}

// matrix (n x n, the lower triangle is read) = vectors diag(values) vectorsᵀ, values descending, the largest-magnitude
// entry of each column positive. Returns the number of sweeps or NOT_CONVERGED; ends with a barrier.
template <class T>
SELSHARE_BLOCK int block_eigh(const Block& block, const T* matrix, T* values, T* vectors, const EighSpace<T>& at,
                              int n) {
    T *found = at.scratch, *signs = at.scratch + n;
    block.each(even(n), even(n), [&](int i, int j) {
        if (j <= i) at.lower[triangle(i) + j] = i < n ? matrix[i * n + j] : T(0);
        if (i < n && j < n) at.rows[i * row_stride(n) + j] = i == j;
    });
    block.barrier();
    block.each(n, [&](int i) { found[i] = largest_of(at.lower + triangle(i), i + 1); });
    block.barrier();
    const T largest = largest_of(found, n);
    const PowerScale<T> scale = power_scale(largest);
    block.each(triangle(n), [&](int i) { at.lower[i] *= scale.down; });
    block.barrier();
    const int sweeps = sweep_until_diagonal(block, at, n);
    block.each(n, [&](int i) { found[i] = at.lower[triangle(i) + i]; });
    block.barrier();
    store_sorted(block, found, scale.up, at.rows, n, at.order, signs, values, vectors);
    return sweeps;
}

}  // namespace selshare::blocks
