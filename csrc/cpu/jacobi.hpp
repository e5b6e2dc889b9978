// Cyclic Jacobi for symmetric eigenproblems, one matrix per SIMD lane. Lanes that have converged take identity
// rotations, so a matrix gives the same bits whatever shares its block.
#pragma once

#include <cstddef>
#include <limits>

#include "cpu/lanes.hpp"

namespace selshare {

constexpr int MOST_JACOBI_SWEEPS = 40;  // 4 to 10 are usual

template <class T>
SELSHARE_INLINE void rotate_pairs(const Rotation<Lanes<T>>& by, Lanes<T>* x, std::ptrdiff_t x_step, Lanes<T>* y,
                                  std::ptrdiff_t y_step, int pairs) {
    for (int k = 0; k < pairs; ++k) rotate(by, x[k * x_step], y[k * y_step]);
}

// Diagonalises the lower triangle `a` (rows of ld vectors, entries at most about 1): eigenvalues into d, eigenvectors
// into the columns of z. Returns the lanes that did not converge.
template <class T>
SELSHARE_INLINE Mask<T> jacobi(Lanes<T>* a, int n, int ld, Lanes<T>* d, Lanes<T>* z) {
    using L = Lanes<T>;
    const L relative = Constant<L>::of(std::numeric_limits<T>::epsilon() / 2);
    const L smallest = Constant<L>::of(std::numeric_limits<T>::min());
    const L zero = Constant<L>::of(0);
    for (int i = 0; i < n; ++i)
        for (int j = 0; j < n; ++j) z[i * ld + j] = Constant<L>::of(i == j);
    Mask<T> rotated{};
    for (int sweep = 0; sweep < MOST_JACOBI_SWEEPS; ++sweep) {
        rotated = Mask<T>{};
        for (int p = 0; p < n; ++p)
            for (int q = p + 1; q < n; ++q) {
                L &pp = a[p * ld + p], &qq = a[q * ld + q], &pq = a[q * ld + p];
                const auto by = jacobi_rotation(pp, qq, pq, relative, smallest);
                const Mask<T> here = magnitude(by.tangent) > zero;
                if (!any(here)) continue;
                rotated = rotated | here;
                pp = pp - by.tangent * pq;
                qq = qq + by.tangent * pq;
                pq = where(here, zero, pq);
                rotate_pairs(by, a + p * ld, 1, a + q * ld, 1, p);
                rotate_pairs(by, a + (p + 1) * ld + p, ld, a + q * ld + p + 1, 1, q - p - 1);
                rotate_pairs(by, a + (q + 1) * ld + p, ld, a + (q + 1) * ld + q, ld, n - q - 1);
                rotate_pairs(by, z + p, ld, z + q, ld, n);
            }
        if (!any(rotated)) break;
    }
    for (int i = 0; i < n; ++i) d[i] = a[i * ld + i];
    return rotated;
}

}  // namespace selshare
