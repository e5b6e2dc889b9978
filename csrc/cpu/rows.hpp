// Products of short, wide float64 matrices. A matrix is p rows, each `ld` doubles apart (a multiple of 8), aligned to
// 64 bytes and zero beyond its last column up to ld.
#pragma once

#include <cstddef>
#include <cstdint>

namespace selshare {

constexpr std::int64_t padded(std::int64_t columns) { return (columns + 7) / 8 * 8; }

// Copies `columns` columns of p rows, `step` items apart, into rows of ld >= columns, times `scale`.
void pack_rows(const float* source, std::int64_t step, int p, std::int64_t columns, double scale, double* rows,
               std::int64_t ld);
void pack_rows(const double* source, std::int64_t step, int p, std::int64_t columns, double scale, double* rows,
               std::int64_t ld);

// The same, transposed: q source rows of p items, `step` apart, become p rows of ld >= q.
void pack_columns(const float* source, std::int64_t step, std::int64_t q, int p, double scale, double* rows,
                  std::int64_t ld);
void pack_columns(const double* source, std::int64_t step, std::int64_t q, int p, double scale, double* rows,
                  std::int64_t ld);

// Adds X Xᵀ to the lower triangle of `gram` (p x p).
void add_gram(const double* rows, std::int64_t ld, int p, double* gram);

// out = W X for W (r x p, contiguous) and columns first .. first + columns of X, where `first` need not be aligned:
// rows of out_ld >= padded(columns) are written, zero beyond `columns`. X may be read up to 7 doubles past its end.
void combine_rows(const double* W, int r, int p, const double* rows, std::int64_t ld, std::int64_t columns, double* out,
                  std::int64_t out_ld);

// One-sided Jacobi: rotates the p rows until they are orthogonal to working precision, relative to the norms of each
// pair, and the rows of `companion` (p x width, contiguous) along with them. Rows below `floor` in norm count as zero.
// `norms` gets the p norms. False if it did not converge.
// Source: Demmel and Veselić, Jacobi's method is more accurate than QR, SIAM J. Matrix Anal. Appl. 13(4), 1992.
bool orthogonalise_rows(double* rows, std::int64_t ld, int p, double* companion, int width, double floor,
                        double* norms);

}  // namespace selshare
