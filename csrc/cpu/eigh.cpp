// Cyclic Jacobi, one matrix per SIMD lane: a block of 16 float or 8 double matrices is transposed so that entry
// (i, j) of all of them is one vector, and every operation acts on the whole block. Lanes that have converged take
// identity rotations, so a matrix gives the same bits whatever shares its block.
#include "cpu/eigh.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "cpu/lanes.hpp"
#include "cpu/workspace.hpp"

namespace selshare {
namespace {

constexpr int MOST_SWEEPS = 40;  // 6 to 10 are usual

// Scale factors that bring the largest entry of each matrix near 1, so that squares neither overflow nor vanish.
template <class T>
struct Scale {
    Lanes<T> down, up;
};

// Loads lower triangles: lower[i * n + j], j <= i; lanes beyond `present` get zero matrices. Powers of two scale.
template <class T>
SELSHARE_INLINE Scale<T> load(const T* matrices, Lanes<T>* lower, int n, int present) {
    Scale<T> scale{Constant<Lanes<T>>::of(1), Constant<Lanes<T>>::of(1)};
    for (int i = 0; i < n * n; ++i) lower[i] = Constant<Lanes<T>>::of(0);
    for (int lane = 0; lane < present; ++lane) {
        const T* matrix = matrices + static_cast<std::int64_t>(lane) * n * n;
        T largest = 0;
        for (int i = 0; i < n; ++i)
            for (int j = 0; j <= i; ++j) {
                lower[i * n + j].value[lane] = matrix[i * n + j];
                largest = std::max(largest, std::abs(matrix[i * n + j]));
            }
        if (largest > 0) {
            constexpr int limit = std::numeric_limits<T>::max_exponent - 3;
            const int exponent = std::clamp(std::ilogb(largest), -limit, limit);
            scale.down.value[lane] = std::ldexp(T(1), -exponent);
            scale.up.value[lane] = std::ldexp(T(1), exponent);
        }
    }
    for (int i = 0; i < n; ++i)
        for (int j = 0; j <= i; ++j) lower[i * n + j] = lower[i * n + j] * scale.down;
    return scale;
}

template <class T>
SELSHARE_INLINE void rotate_pairs(const Rotation<Lanes<T>>& by, Lanes<T>* x, std::ptrdiff_t x_step, Lanes<T>* y,
                                  std::ptrdiff_t y_step, int pairs) {
    for (int k = 0; k < pairs; ++k) rotate(by, x[k * x_step], y[k * y_step]);
}

// Diagonalises `lower` in place; rows of `vectors` become the eigenvectors. Returns the lanes that did not converge.
template <class T>
SELSHARE_INLINE Mask<T> jacobi(Lanes<T>* lower, Lanes<T>* vectors, int n) {
    using L = Lanes<T>;
    const L relative = Constant<L>::of(std::numeric_limits<T>::epsilon() / 2);
    const L smallest = Constant<L>::of(std::numeric_limits<T>::min());
    const L zero = Constant<L>::of(0);
    for (int i = 0; i < n * n; ++i) vectors[i] = Constant<L>::of(i % (n + 1) == 0);
    Mask<T> rotated{};
    for (int sweep = 0; sweep < MOST_SWEEPS; ++sweep) {
        rotated = Mask<T>{};
        for (int p = 0; p < n; ++p)
            for (int q = p + 1; q < n; ++q) {
                L &pp = lower[p * n + p], &qq = lower[q * n + q], &pq = lower[q * n + p];
                const auto by = jacobi_rotation(pp, qq, pq, relative, smallest);
                const Mask<T> here = magnitude(by.tangent) > zero;
                if (!any(here)) continue;
                rotated = rotated | here;
                pp = pp - by.tangent * pq;
                qq = qq + by.tangent * pq;
                pq = where(here, zero, pq);
                rotate_pairs(by, lower + p * n, 1, lower + q * n, 1, p);
                rotate_pairs(by, lower + (p + 1) * n + p, n, lower + q * n + p + 1, 1, q - p - 1);
                rotate_pairs(by, lower + (q + 1) * n + p, n, lower + (q + 1) * n + q, n, n - q - 1);
                rotate_pairs(by, vectors + p * n, 1, vectors + q * n, 1, n);
            }
        if (!any(rotated)) break;
    }
    return rotated;
}

// Writes one matrix's result: values descending, vectors as columns with their largest-magnitude entry positive.
template <class T>
SELSHARE_INLINE void store(const Lanes<T>* lower, const Lanes<T>* rows, T up, int lane, int n, T* values, T* vectors,
                           int* order) {
    std::iota(order, order + n, 0);
    const auto value = [&](int i) { return lower[i * n + i].value[lane]; };
    std::stable_sort(order, order + n, [&](int a, int b) { return value(a) > value(b); });
    for (int j = 0; j < n; ++j) {
        const Lanes<T>* row = rows + order[j] * n;
        T largest = 0;
        for (int i = 0; i < n; ++i)
            if (std::abs(row[i].value[lane]) > std::abs(largest)) largest = row[i].value[lane];
        const T sign = largest < 0 ? -1 : 1;
        for (int i = 0; i < n; ++i) vectors[i * n + j] = sign * row[i].value[lane];
        values[j] = up * value(order[j]);
    }
}

template <class T>
SELSHARE_INLINE std::int64_t solve(const T* matrices, T* values, T* vectors, std::int64_t count, int n, int threads) {
    constexpr int width = Lanes<T>::count;
    const std::int64_t blocks = (count + width - 1) / width;
    const std::int64_t square = static_cast<std::int64_t>(n) * n;
    threads = static_cast<int>(std::max<std::int64_t>(1, std::min<std::int64_t>(threads, blocks)));
    Workspace<Lanes<T>> workspace(2 * square, threads);
    std::vector<int> orders(static_cast<std::size_t>(n) * threads);
    std::int64_t failed = -1;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (std::int64_t block = 0; block < blocks; ++block) {
        Lanes<T>*lower = workspace.mine(), *rows = lower + square;
        int* order = orders.data() + static_cast<std::size_t>(n) * thread_number();
        const std::int64_t first = block * width;
        const int present = static_cast<int>(std::min<std::int64_t>(width, count - first));
        const Scale<T> scale = load(matrices + first * square, lower, n, present);
        const Mask<T> open = jacobi(lower, rows, n);
        for (int lane = 0; lane < present; ++lane) {
            if (open.value[lane] != 0) {
#pragma omp critical(selshare_eigh_failed)
                failed = first + lane;
            }
            const std::int64_t matrix = first + lane;
            store(lower, rows, scale.up.value[lane], lane, n, values + matrix * n, vectors + matrix * square, order);
        }
    }
    return failed;
}

}  // namespace

SELSHARE_CLONES std::int64_t batched_eigh(const float* matrices, float* values, float* vectors, std::int64_t count,
                                          int n, int threads) {
    return solve(matrices, values, vectors, count, n, threads);
}

SELSHARE_CLONES std::int64_t batched_eigh(const double* matrices, double* values, double* vectors, std::int64_t count,
                                          int n, int threads) {
    return solve(matrices, values, vectors, count, n, threads);
}

}  // namespace selshare
