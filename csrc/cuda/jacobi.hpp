// What the two Jacobi solvers share: the rounds of disjoint pairs, and the order and signs of the result.
// Source of the rounds: Brent and Luk, SIAM J. Sci. Stat. Comput. 6(1), 69-84, 1985 (a round-robin tournament).
#pragma once

#include "cuda/block.hpp"

namespace selshare::blocks {

constexpr int MOST_SWEEPS = 60;  // 5 to 12 are usual, 26 for spectra that span 14 decades
constexpr int NOT_CONVERGED = -1;

// A rotation as sine and tangent of half the angle: (x, y) -> (x - s (y + h x), y + s (x - h y)). For small angles, the
// most of them, rounding s and h hardly changes lengths, which rounding a cosine would.
// Source: Rutishauser, Numer. Math. 9, 1-10, 1966.
template <class T>
struct Turn {
    T sine, half, tangent;
};

template <class T>
SELSHARE_SHARED Turn<T> jacobi_turn(T pp, T qq, T pq, T relative, T negligible) {
    const Rotation<T> rotation = jacobi_rotation<T>(pp, qq, pq, relative, negligible);
    return {rotation.sine, rotation.sine / (1 + rotation.cosine), rotation.tangent};
}

template <class T>
SELSHARE_SHARED void turn(const Turn<T>& by, T& x, T& y) {
    const T a = x, b = y;
    x = a - by.sine * (b + by.half * a);
    y = b + by.sine * (a - by.half * b);
}

struct Pair {
    int p, q;  // p < q
};

// A tournament of `players` (even) has players - 1 rounds of players / 2 disjoint pairs; all pairs meet once. In one
// round p and q of neighbouring pairs are neighbours, so that shared memory is read without bank conflicts.
SELSHARE_SHARED int even(int n) { return n + n % 2; }
SELSHARE_SHARED Pair pair_of(int index, int round, int players) {
    const int ring = players - 1;
    int a = round + index, b = round - index;
    if (a >= ring) a -= ring;
    if (b < 0) b += ring;
    if (index == 0) b = ring;
    return a < b ? Pair{a, b} : Pair{b, a};
}

// Odd, so that the threads of a warp find a column's entries in different banks.
SELSHARE_SHARED int row_stride(int n) { return n | 1; }

// The number of values that come before values[i] in descending order, equal ones by index.
template <class T>
SELSHARE_SHARED int rank_of(const T* values, int i, int n) {
    int rank = 0;
    for (int j = 0; j < n; ++j) rank += values[j] > values[i] || (values[j] == values[i] && j < i);
    return rank;
}

// The sign that makes the largest-magnitude entry, the first such, of a vector positive.
template <class T>
SELSHARE_SHARED T sign_of(const T* vector, int n) {
    T largest = 0;
    for (int i = 0; i < n; ++i)
        if (magnitude(vector[i]) > magnitude(largest)) largest = vector[i];
    return largest < 0 ? T(-1) : T(1);
}

// Writes found[i] * up in descending order, and the rows in the same order as columns with their signs fixed. `order`
// and `signs` are scratch of n. Ends with a barrier.
template <class T>
SELSHARE_BLOCK void store_sorted(const Block& block, const T* found, T up, const T* rows, int n, int* order, T* signs,
                                 T* values, T* vectors) {
    block.each(n, [&](int i) {
        const int rank = rank_of(found, i, n);
        order[rank] = i;
        signs[rank] = sign_of(rows + static_cast<std::int64_t>(i) * row_stride(n), n);
        values[rank] = up * found[i];
    });
    block.barrier();
    block.each(n, n, [&](int i, int j) { vectors[i * n + j] = signs[j] * rows[order[j] * row_stride(n) + i]; });
    block.barrier();
}

}  // namespace selshare::blocks
