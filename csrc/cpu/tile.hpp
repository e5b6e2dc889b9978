// Products of small matrices whose result goes from registers, six rows and a panel of columns at a time, to a
// function that consumes it at once: C = A B with A (M, K) read in place with any strides and B (K, N) packed.
//
// Six rows by four 64-byte vectors (by two in the narrower versions) are 24 (12) independent sums, enough to hide
// the latency of the multiply-adds. Why not a library's batched product: docs/step.md has the measurements.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/dispatch.hpp"

namespace selshare {

using Index = std::int64_t;

constexpr int TILE_ROWS = 6;

// Elements of a vector, and columns of a panel.
template <class T, int BYTES>
constexpr int LANES = BYTES / static_cast<int>(sizeof(T));
template <class T, int BYTES>
constexpr int PANEL = (BYTES == 64 ? 4 : 2) * LANES<T, BYTES>;

// No more threads than have some ten microseconds of work each.
inline int useful_threads(int threads, Index multiply_adds) {
    return static_cast<int>(std::clamp<Index>(multiply_adds >> 18, 1, threads));
}

// Layers a thread takes at a time: several in a row, since each fetches what the one after it needs.
inline Index chunk_of(Index layers, int threads) { return std::clamp<Index>(layers / (8 * threads), 1, 8); }

// A matrix or vector somewhere in memory: element (i, j) at data[i * row + j * column].
template <class T>
struct Strided {
    const T* data;
    Index row, column;
};

// Elements that B (K, N) takes packed: columns in panels, each panel row by row, the last one as many whole vectors
// as it needs and filled up with zeros.
template <class T, int BYTES>
SELSHARE_INLINE Index packed_size(Index K, Index N) {
    constexpr Index W = LANES<T, BYTES>;
    return K * ((N + W - 1) / W * W);
}

// Whether a strided matrix is in packed form as it lies: one panel of whole vectors.
template <class T, int BYTES>
SELSHARE_INLINE bool is_packed(const Strided<T>& b, Index N) {
    return b.column == 1 && b.row == N && N <= PANEL<T, BYTES> && N % LANES<T, BYTES> == 0;
}

template <class T, bool RECTIFY>
SELSHARE_INLINE T rectified(T x) {
    return RECTIFY && x < 0 ? T(0) : x;  // NaN stays NaN
}

template <class T>
struct IntegerLike;
template <>
struct IntegerLike<float> {
    using type = std::int32_t;
};
template <>
struct IntegerLike<double> {
    using type = std::int64_t;
};

// Entry j is which[j] of the entries of a and, after them, b. (Clang's builtin wants indices it knows when it reads the
// source; it makes the same instructions of this loop once the callers' loops are unrolled.)
template <class Vector, class Lane>
SELSHARE_INLINE Vector shuffled(const Vector& a, const Vector& b, const Lane& which) {
#ifdef __clang__
    constexpr int W = sizeof(Vector) / sizeof(a[0]);
    Vector result;
    for (int j = 0; j < W; ++j) result[j] = which[j] < W ? a[which[j]] : b[which[j] - W];
    return result;
#else
    return __builtin_shuffle(a, b, which);
#endif
}

// A square block of W columns of B, W consecutive elements each, written as W rows: butterflies that swap the
// off-diagonal halves of ever larger squares. Columns from `columns` on are zero.
template <class T, int BYTES, bool RECTIFY>
SELSHARE_INLINE void transpose_block(const T* from, Index column, Index columns, T* to, Index width) {
    constexpr int W = LANES<T, BYTES>;
    using Integer = typename IntegerLike<T>::type;
    typedef T Vector __attribute__((vector_size(BYTES)));
    typedef T Loose __attribute__((vector_size(BYTES), aligned(sizeof(T))));
    typedef Integer Lane __attribute__((vector_size(BYTES)));
    Vector row[W];
#pragma GCC unroll 16
    for (int j = 0; j < W; ++j) {
        row[j] = j < columns ? Vector(*reinterpret_cast<const Loose*>(from + j * column)) : Vector{};
        if (RECTIFY) row[j] = row[j] < 0 ? Vector{} : row[j];
    }
    Lane lane;
    for (int j = 0; j < W; ++j) lane[j] = j;
#pragma GCC unroll 4
    for (Integer half = 1; half < W; half *= 2) {
        const Lane upper = (lane & half) != 0;
        const Lane first = upper ? lane + (W - half) : lane, second = upper ? lane + W : lane + half;
#pragma GCC unroll 16
        for (int j = 0; j < W; ++j) {
            if (j & half) continue;
            const Vector a = row[j], b = row[j + half];
            row[j] = shuffled(a, b, first);
            row[j + half] = shuffled(a, b, second);
        }
    }
#pragma GCC unroll 16
    for (int j = 0; j < W; ++j) *reinterpret_cast<Loose*>(to + j * width) = row[j];
}

template <class T, int BYTES, bool RECTIFY>
SELSHARE_INLINE void pack_as(const Strided<T>& b, Index K, Index N, T* packed) {
    constexpr Index W = LANES<T, BYTES>, P = PANEL<T, BYTES>;
    for (Index first = 0; first < N; first += P) {
        const Index columns = std::min(P, N - first), width = (columns + W - 1) / W * W;
        const T* from = b.data + first * b.column;
        Index done = 0;  // rows of the panel
        if (b.column == 1 && columns == P) {
            for (; done < K; ++done)
                for (Index j = 0; j < P; ++j) packed[done * P + j] = rectified<T, RECTIFY>(from[done * b.row + j]);
        } else if (b.row == 1) {
            for (; done + W <= K; done += W)
                for (Index j = 0; j < width; j += W)
                    transpose_block<T, BYTES, RECTIFY>(from + done + j * b.column, b.column, columns - j,
                                                       packed + done * width + j, width);
        }
        for (; done < K; ++done) {
            for (Index j = 0; j < columns; ++j)
                packed[done * width + j] = rectified<T, RECTIFY>(from[done * b.row + j * b.column]);
            for (Index j = columns; j < width; ++j) packed[done * width + j] = 0;
        }
        packed += K * width;
    }
}

// Packs B (K, N), or max(B, 0).
template <class T, int BYTES>
SELSHARE_INLINE void pack(const Strided<T>& b, Index K, Index N, bool rectify, T* packed) {
    if (rectify)
        pack_as<T, BYTES, true>(b, K, N, packed);
    else
        pack_as<T, BYTES, false>(b, K, N, packed);
}

// Memory that is needed next and is fetched meanwhile: with row r of C, `per_row` bytes from base + r * per_row on.
struct Stream {
    const void* base;
    Index per_row;
};

// Where each stream stands, and by how many bytes it moves with each multiply-add of a tile.
template <int STREAMS>
struct Ahead {
    const char* at[STREAMS];
    Index step[STREAMS];
};

template <class T, int BYTES, int VECTORS, int STREAMS>
SELSHARE_INLINE void multiply_tile(const Strided<T>& a, Index rows, const T* packed, Index K, T* out,
                                   Ahead<STREAMS>& ahead) {
    typedef T Vector __attribute__((vector_size(BYTES)));
    typedef T Loose __attribute__((vector_size(BYTES), aligned(sizeof(T))));
    constexpr int W = LANES<T, BYTES>;
    const T* row[TILE_ROWS];  // where there are fewer rows, the last is repeated
#pragma GCC unroll 8
    for (int r = 0; r < TILE_ROWS; ++r) row[r] = a.data + std::min<Index>(r, rows - 1) * a.row;
    Vector sum[TILE_ROWS][VECTORS];
#pragma GCC unroll 8
    for (int r = 0; r < TILE_ROWS; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) sum[r][v] = Vector{};
    for (Index k = 0; k < K; ++k) {
        Vector b[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) b[v] = *reinterpret_cast<const Loose*>(packed + (k * VECTORS + v) * W);
#pragma GCC unroll 8
        for (int r = 0; r < TILE_ROWS; ++r) {
            const Vector x = row[r][k * a.column] - Vector{};
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; ++v) sum[r][v] += x * b[v];
        }
#pragma GCC unroll 4
        for (int s = 0; s < STREAMS; ++s) {
            __builtin_prefetch(ahead.at[s], 0, 3);
            ahead.at[s] += ahead.step[s];
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < TILE_ROWS; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) *reinterpret_cast<Loose*>(out + (r * VECTORS + v) * W) = sum[r][v];
}

// C (M, N) = A (M, K) B (K, N), in pieces of a row: consume(row, column, count, values) for each, every element once.
template <class T, int BYTES, int STREAMS, class Consume>
SELSHARE_INLINE void multiply(const Strided<T>& a, const T* packed, Index M, Index N, Index K,
                              const Stream (&streams)[STREAMS], const Consume& consume) {
    constexpr Index W = LANES<T, BYTES>, P = PANEL<T, BYTES>;
    alignas(64) T tile[TILE_ROWS * P];
    const Index adds = std::max<Index>(1, (N + P - 1) / P * K);  // of six rows
    Ahead<STREAMS> ahead;
    for (int s = 0; s < STREAMS; ++s)
        ahead.step[s] = std::min<Index>((streams[s].per_row * TILE_ROWS + adds - 1) / adds, 64);
    for (Index first = 0; first < M; first += TILE_ROWS) {
        const Index rows = std::min<Index>(TILE_ROWS, M - first);
        const Strided<T> part{a.data + first * a.row, a.row, a.column};
        for (int s = 0; s < STREAMS; ++s)
            ahead.at[s] = static_cast<const char*>(streams[s].base) + first * streams[s].per_row;
        const T* panel = packed;
        for (Index column = 0; column < N; column += P) {
            const Index count = std::min(P, N - column), vectors = (count + W - 1) / W;
            if (BYTES == 64 && vectors == 4)
                multiply_tile<T, BYTES, BYTES == 64 ? 4 : 1>(part, rows, panel, K, tile, ahead);
            else if (BYTES == 64 && vectors == 3)
                multiply_tile<T, BYTES, BYTES == 64 ? 3 : 1>(part, rows, panel, K, tile, ahead);
            else if (vectors == 2)
                multiply_tile<T, BYTES, 2>(part, rows, panel, K, tile, ahead);
            else
                multiply_tile<T, BYTES, 1>(part, rows, panel, K, tile, ahead);
            if (count == P)
                for (Index r = 0; r < rows; ++r) consume(first + r, column, P, tile + r * P);
            else
                for (Index r = 0; r < rows; ++r) consume(first + r, column, count, tile + r * vectors * W);
            panel += K * vectors * W;
        }
    }
}

}  // namespace selshare
