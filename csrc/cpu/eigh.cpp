// A block of 16 float or 8 double matrices is transposed so that entry (i, j) of all of them is one vector, and every
// operation acts on the whole block.
#include "cpu/eigh.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "cpu/jacobi.hpp"
#include "cpu/lanes.hpp"
#include "cpu/tridiagonal.hpp"
#include "cpu/workspace.hpp"

namespace selshare {
namespace {

constexpr int LARGEST_FOR_JACOBI = 8;        // measured
constexpr std::size_t TURN_BYTES = 1 << 19;  // rotations collected before they are applied: a share of the L2 cache

// Scratch of one thread, in vectors: what a block of matrices of size n needs.
template <class T>
struct Block {
    int n, ld;
    std::ptrdiff_t held;  // turns
    Lanes<T>*a, *z, *d, *e, *tau, *v, *w, *next, *p;
    Turn<T>* turns;

    static SELSHARE_INLINE int leading(int n) { return n | 1; }  // odd: columns do not fall on one cache set
    static SELSHARE_INLINE std::size_t turns_held(int n) {
        return std::max<std::size_t>(n, TURN_BYTES / sizeof(Turn<T>));
    }
    static SELSHARE_INLINE std::size_t vectors(int n) {
        return 2 * static_cast<std::size_t>(n) * leading(n) + 7 * static_cast<std::size_t>(n) + 2 * turns_held(n);
    }
    SELSHARE_INLINE Block(Lanes<T>* memory, int n) : n(n), ld(leading(n)), held(turns_held(n)) {
        const std::size_t square = static_cast<std::size_t>(n) * ld;
        a = memory;
        z = a + square;
        d = z + square;
        e = d + n, tau = e + n, v = tau + n, w = v + n, next = w + n, p = next + n;
        turns = reinterpret_cast<Turn<T>*>(p + n);
    }
};

// Loads the lower triangles of `present` matrices, the other lanes zero, and scales each by a power of two that brings
// its largest entry near 1, so that squares neither overflow nor vanish. Returns what undoes the scaling.
template <class T>
SELSHARE_INLINE Lanes<T> load(const T* matrices, Lanes<T>* a, int n, int ld, int present) {
    Lanes<T> largest = Constant<Lanes<T>>::of(0), down = Constant<Lanes<T>>::of(1), up = down;
    for (int i = 0; i < n; ++i) {
        if (present < Lanes<T>::count)
            for (int j = 0; j <= i; ++j) a[i * ld + j] = Constant<Lanes<T>>::of(0);
        for (int lane = 0; lane < present; ++lane) {
            const T* row = matrices + (static_cast<std::int64_t>(lane) * n + i) * n;
            for (int j = 0; j <= i; ++j) a[i * ld + j].value[lane] = row[j];
        }
        for (int j = 0; j <= i; ++j) {
            const Lanes<T> size = magnitude(a[i * ld + j]);
            largest = where(size > largest, size, largest);
        }
    }
    for (int lane = 0; lane < present; ++lane) {
        if (largest.value[lane] == 0) continue;
        constexpr int limit = std::numeric_limits<T>::max_exponent - 3;
        const int exponent = std::clamp(std::ilogb(largest.value[lane]), -limit, limit);
        down.value[lane] = std::ldexp(T(1), -exponent);
        up.value[lane] = std::ldexp(T(1), exponent);
    }
    for (int i = 0; i < n; ++i)
        for (int j = 0; j <= i; ++j) a[i * ld + j] = a[i * ld + j] * down;
    return up;
}

// Eigenvalues into d, eigenvectors into the columns of z. Returns the lanes that did not converge.
template <class T>
SELSHARE_INLINE Mask<T> solve(const Block<T>& b) {
    if (b.n <= LARGEST_FOR_JACOBI) return jacobi(b.a, b.n, b.ld, b.d, b.z);
    tridiagonalise(b.a, b.n, b.ld, b.d, b.e, b.tau, b.v, b.w, b.next, b.p);
    accumulate_reflectors(b.a, b.tau, b.n, b.ld, b.z);
    ImplicitQL<T> iteration(b.d, b.e, b.n);
    std::vector<Sweep> sweeps;
    std::ptrdiff_t used = 0;
    int left = SWEEPS_PER_VALUE * b.n;
    bool more = iteration.find_blocks();
    while (more && left-- > 0) {
        sweeps.push_back(iteration.sweep(b.turns, used));
        used += sweeps.back().last - sweeps.back().first;
        more = iteration.find_blocks();
        if (used + b.n > b.held || !more) {
            apply_turns(b.z, b.n, b.ld, b.turns, sweeps.data(), static_cast<int>(sweeps.size()));
            sweeps.clear();
            used = 0;
        }
    }
    return iteration.open();
}

// Multiplies each column of z by the sign that makes its largest-magnitude entry, the first such, positive.
template <class T>
SELSHARE_INLINE void fix_signs(const Block<T>& b) {
    using L = Lanes<T>;
    const L zero = Constant<L>::of(0), one = Constant<L>::of(1);
    for (int j = 0; j < b.n; ++j) b.v[j] = b.w[j] = zero;
    for (int i = 0; i < b.n; ++i)
        for (int j = 0; j < b.n; ++j) {
            const L entry = b.z[i * b.ld + j], size = magnitude(entry);
            const Mask<T> larger = size > b.v[j];
            b.v[j] = where(larger, size, b.v[j]);
            b.w[j] = where(larger, entry, b.w[j]);
        }
    for (int j = 0; j < b.n; ++j) b.w[j] = where(b.w[j] < zero, zero - one, one);
    for (int i = 0; i < b.n; ++i)
        for (int j = 0; j < b.n; ++j) b.z[i * b.ld + j] = b.z[i * b.ld + j] * b.w[j];
}

// Writes the results of `present` lanes, values descending.
template <class T>
SELSHARE_INLINE void store(const Block<T>& b, Lanes<T> up, int present, T* values, T* vectors, int* orders) {
    const int n = b.n;
    for (int lane = 0; lane < present; ++lane) {
        int* order = orders + lane * n;
        std::iota(order, order + n, 0);
        std::stable_sort(order, order + n,
                         [&](int i, int j) { return b.d[i].value[lane] > b.d[j].value[lane]; });
        for (int j = 0; j < n; ++j) values[lane * n + j] = up.value[lane] * b.d[order[j]].value[lane];
    }
    for (int i = 0; i < n; ++i)
        for (int lane = 0; lane < present; ++lane) {
            T* row = vectors + (static_cast<std::int64_t>(lane) * n + i) * n;
            const int* order = orders + lane * n;
            for (int j = 0; j < n; ++j) row[j] = b.z[i * b.ld + order[j]].value[lane];
        }
}

// Solves `present` matrices, at most one per lane. Returns -1, or the position of one that did not converge.
template <class T>
SELSHARE_INLINE int solve_block(const T* matrices, T* values, T* vectors, int n, int present, Lanes<T>* memory,
                                int* orders) {
    const Block<T> block(memory, n);
    const Lanes<T> up = load(matrices, block.a, n, block.ld, present);
    const Mask<T> open = solve(block);
    fix_signs(block);
    store(block, up, present, values, vectors, orders);
    for (int lane = 0; lane < present; ++lane)
        if (open.value[lane] != 0) return lane;
    return -1;
}

// One clone each; the loops over blocks call them, as a parallel loop inside a template would stay at the baseline.
SELSHARE_CLONES int solve_lanes(const float* matrices, float* values, float* vectors, int n, int present,
                                Lanes<float>* memory, int* orders) {
    return solve_block(matrices, values, vectors, n, present, memory, orders);
}
SELSHARE_CLONES int solve_lanes(const double* matrices, double* values, double* vectors, int n, int present,
                                Lanes<double>* memory, int* orders) {
    return solve_block(matrices, values, vectors, n, present, memory, orders);
}

template <class T>
std::int64_t solve_all(const T* matrices, T* values, T* vectors, std::int64_t count, int n, int threads) {
    constexpr int width = Lanes<T>::count;
    const std::int64_t blocks = (count + width - 1) / width, square = static_cast<std::int64_t>(n) * n;
    threads = static_cast<int>(std::max<std::int64_t>(1, std::min<std::int64_t>(threads, blocks)));
    Workspace<Lanes<T>> workspace(Block<T>::vectors(n), threads);
    Workspace<int> orders(static_cast<std::size_t>(n) * width, threads);
    std::int64_t failed = -1;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (std::int64_t block = 0; block < blocks; ++block) {
        const std::int64_t first = block * width;
        const int present = static_cast<int>(std::min<std::int64_t>(width, count - first));
        const int open = solve_lanes(matrices + first * square, values + first * n, vectors + first * square, n,
                                     present, workspace.mine(), orders.mine());
        if (open >= 0) {
#pragma omp atomic write
            failed = first + open;
        }
    }
    return failed;
}

}  // namespace

std::int64_t batched_eigh(const float* matrices, float* values, float* vectors, std::int64_t count, int n,
                          int threads) {
    return solve_all(matrices, values, vectors, count, n, threads);
}

std::int64_t batched_eigh(const double* matrices, double* values, double* vectors, std::int64_t count, int n,
                          int threads) {
    return solve_all(matrices, values, vectors, count, n, threads);
}

}  // namespace selshare
