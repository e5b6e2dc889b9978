// A block of threads as the solvers of this folder see it: the threads of a CUDA block, or on the CPU one thread that
// does all their work. Work between two barriers is a set of items that do not depend on each other, so the CPU may
// take them in any order; it takes them backwards when told to, which tests that they do not.
#pragma once

#include <cstdint>

#include "numeric.hpp"

#if defined(__CUDACC__)
#define SELSHARE_BLOCK __device__ __forceinline__
#else
#define SELSHARE_BLOCK inline
#endif

namespace selshare::blocks {

constexpr int WARP = 32;

// As constants, which device code may read.
template <class T>
struct Limits {
    static constexpr T epsilon = std::numeric_limits<T>::epsilon();
    static constexpr int exponent = std::numeric_limits<T>::max_exponent;
};

// The products of two vectors: [[pp, pq], [pq, qq]].
template <class T>
struct Gram {
    T pp, qq, pq;
};

#if defined(__CUDACC__)

// The threads of one warp, which take consecutive elements.
struct Warp {
    int lane;

    // One of them, for what is to be written once.
    SELSHARE_BLOCK bool first() const { return lane == 0; }

    template <class F>
    SELSHARE_BLOCK void each(int count, F f) const {
        for (int i = lane; i < count; i += WARP) f(i);
    }

    template <class T>
    SELSHARE_BLOCK Gram<T> gram(const T* x, const T* y, int count) const {
        Gram<T> sum{0, 0, 0};
        for (int i = lane; i < count; i += WARP) {
            const T a = x[i], b = y[i];
            sum = {sum.pp + a * a, sum.qq + b * b, sum.pq + a * b};
        }
        for (int step = WARP / 2; step > 0; step /= 2) {
            sum.pp += __shfl_xor_sync(~0u, sum.pp, step);
            sum.qq += __shfl_xor_sync(~0u, sum.qq, step);
            sum.pq += __shfl_xor_sync(~0u, sum.pq, step);
        }
        return sum;
    }
};

struct Block {
    // f(i) for i < count.
    template <class F>
    SELSHARE_BLOCK void each(int count, F f) const {
        for (int i = threadIdx.x; i < count; i += blockDim.x) f(i);
    }

    // f(row, column): neighbouring threads take neighbouring columns, at most a warp of them.
    template <class F>
    SELSHARE_BLOCK void each(int rows, int columns, F f) const {
        const int bits = columns >= WARP ? 5 : 32 - __clz(columns - 1);
        const int width = 1 << bits;
        for (int row = threadIdx.x >> bits; row < rows; row += blockDim.x >> bits)
            for (int column = threadIdx.x & (width - 1); column < columns; column += width) f(row, column);
    }

    // Whether any f(i) is true, and a barrier.
    template <class F>
    SELSHARE_BLOCK bool any(int count, F f) const {
        int found = 0;
        for (int i = threadIdx.x; i < count; i += blockDim.x) found |= f(i);
        return __syncthreads_or(found);
    }

    // The same for f(i, warp), one warp an item.
    template <class F>
    SELSHARE_BLOCK bool any_by_warps(int count, F f) const {
        const Warp warp{static_cast<int>(threadIdx.x) % WARP};
        int found = 0;
        for (int i = threadIdx.x / WARP; i < count; i += blockDim.x / WARP) found |= f(i, warp);
        return __syncthreads_or(found);
    }

    SELSHARE_BLOCK void barrier() const { __syncthreads(); }
};

#else

// The same sums in the same order as the 32 lanes of a warp.
struct Warp {
    bool first() const { return true; }

    template <class F>
    void each(int count, F f) const {
        for (int i = 0; i < count; ++i) f(i);
    }

    template <class T>
    Gram<T> gram(const T* x, const T* y, int count) const {
        Gram<T> lanes[WARP] = {};
        for (int i = 0; i < count; ++i) {
            Gram<T>& sum = lanes[i % WARP];
            const T a = x[i], b = y[i];
            sum = {sum.pp + a * a, sum.qq + b * b, sum.pq + a * b};
        }
        for (int step = WARP / 2; step > 0; step /= 2)
            for (int i = 0; i < step; ++i) {
                const Gram<T>& other = lanes[i + step];
                lanes[i] = {lanes[i].pp + other.pp, lanes[i].qq + other.qq, lanes[i].pq + other.pq};
            }
        return lanes[0];
    }
};

struct Block {
    bool backwards = false;

    template <class F>
    void each(int count, F f) const {
        for (int i = 0; i < count; ++i) f(item(i, count));
    }

    template <class F>
    void each(int rows, int columns, F f) const {
        for (int row = 0; row < rows; ++row)
            for (int column = 0; column < columns; ++column) f(item(row, rows), item(column, columns));
    }

    template <class F>
    bool any(int count, F f) const {
        bool found = false;
        for (int i = 0; i < count; ++i) found |= f(item(i, count));
        return found;
    }

    template <class F>
    bool any_by_warps(int count, F f) const {
        return any(count, [&](int i) { return f(i, Warp{}); });
    }

    void barrier() const {}

  private:
    int item(int i, int count) const { return backwards ? count - 1 - i : i; }
};

#endif

// The largest magnitude of `count` entries.
template <class T>
SELSHARE_SHARED T largest_of(const T* entries, int count) {
    T largest = 0;
    for (int i = 0; i < count; ++i) largest = where(magnitude(entries[i]) > largest, magnitude(entries[i]), largest);
    return largest;
}

// Powers of two that bring a matrix's largest entry near 1, so that squares neither overflow nor vanish, and back.
template <class T>
struct PowerScale {
    T down, up;
};

template <class T>
SELSHARE_SHARED PowerScale<T> power_scale(T largest) {
    if (!(largest > 0)) return {1, 1};
    constexpr int limit = Limits<T>::exponent - 3;
    int exponent = ilogb(largest);
    exponent = exponent > limit ? limit : exponent < -limit ? -limit : exponent;
    return {static_cast<T>(ldexp(T(1), -exponent)), static_cast<T>(ldexp(T(1), exponent))};
}

}  // namespace selshare::blocks
