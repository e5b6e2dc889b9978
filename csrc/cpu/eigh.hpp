// Eigenvalues and eigenvectors of many symmetric matrices.
#pragma once

#include <cstdint>

namespace selshare {

// For each of the `count` symmetric n x n matrices (contiguous; only the lower triangle is read): its eigenvalues in
// descending order, and its eigenvectors as the columns of `vectors`, the largest-magnitude entry of each positive.
// All entries must be finite. Returns -1, or the index of a matrix that did not converge.
std::int64_t batched_eigh(const float* matrices, float* values, float* vectors, std::int64_t count, int n, int threads);
std::int64_t batched_eigh(const double* matrices, double* values, double* vectors, std::int64_t count, int n,
                          int threads);

}  // namespace selshare
