// Exact squared distances, and nearest neighbours picked out of blocks of inner products.
#pragma once

#include <cstdint>

namespace selshare {

// Squared norms of differences (sum == false) or sums (sum == true) of rows of values (n, d), added up in eight lanes
// as kernels/reachability/points.py defines them, to the bit.
void squared_pairs(const double* values, std::int64_t d, bool sum, const std::int32_t* a, const std::int32_t* b,
                   std::int64_t count, double* out, int threads);
void squared_matrix(const double* values, std::int64_t n, std::int64_t d, bool sum, double* out, int threads);

// The k-th smallest entry of each row of an (n, n) matrix, the diagonal left out.
void kth_smallest(const double* matrix, std::int64_t n, std::int64_t k, double* out, int threads);

// A block of inner products g of the points row … row + rows and column … column + columns. Its value for the pair
// (i, j) as seen from i is g - half[j]: the larger, the nearer.
template <class T>
struct Block {
    const T* products;
    std::int64_t rows, columns, row, column;
    const T* half;
};

// For each point, its `kept` largest values so far, descending, and whose they are. kept is a multiple of 16;
// one entry before the first may be read.
template <class T>
struct Neighbours {
    T* values;              // (n, kept)
    std::int32_t* indices;  // (n, kept)
    T* last;                // (n,) a copy of the last of each row's values
    std::int64_t kept;
};

// Enters a block into the lists of its rows and, off the diagonal, of its columns.
template <class T>
void keep_nearest(Block<T> block, Neighbours<T> lists, int threads);

// Pairs found by a scan: written up to capacity, counted beyond it.
struct Pairs {
    std::int32_t *a, *b;
    std::int64_t capacity;
};

// All pairs (points[r], j) of a block whose value is at least cut[r]; returns how many there are.
template <class T>
std::int64_t pairs_above(Block<T> block, const std::int32_t* points, const T* cut, Pairs found, int threads);

}  // namespace selshare
