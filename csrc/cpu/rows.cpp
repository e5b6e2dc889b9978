#include "cpu/rows.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/lanes.hpp"

namespace selshare {
namespace {

using Eight = Lanes<double>;
constexpr double ROUNDING = 2.3e-16;
constexpr int MOST_SWEEPS = 40;
constexpr std::int64_t SQUARE = 8;  // transposition by blocks that stay in cache

SELSHARE_INLINE const Eight* vectors(const double* x) { return reinterpret_cast<const Eight*>(x); }
SELSHARE_INLINE Eight* vectors(double* x) { return reinterpret_cast<Eight*>(x); }

SELSHARE_INLINE Eight unaligned(const double* x) {
    Eight result;
    std::memcpy(&result, x, sizeof(result));
    return result;
}

SELSHARE_INLINE double sum(Eight x) {
    const auto v = x.value;
    return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

template <class T>
SELSHARE_INLINE void pack(const T* source, std::int64_t step, int p, std::int64_t columns, double scale, double* rows,
                          std::int64_t ld) {
    for (int i = 0; i < p; ++i) {
        const T* from = source + i * step;
        double* to = rows + i * ld;
        for (std::int64_t j = 0; j < columns; ++j) to[j] = static_cast<double>(from[j]) * scale;
        for (std::int64_t j = columns; j < ld; ++j) to[j] = 0;
    }
}

template <class T>
SELSHARE_INLINE void pack_transposed(const T* source, std::int64_t step, std::int64_t q, int p, double scale,
                                     double* rows, std::int64_t ld) {
    for (std::int64_t j = 0; j < q; j += SQUARE)
        for (int i = 0; i < p; ++i)
            for (std::int64_t k = j; k < std::min(q, j + SQUARE); ++k)
                rows[i * ld + k] = static_cast<double>(source[k * step + i]) * scale;
    for (int i = 0; i < p; ++i)
        for (std::int64_t k = q; k < ld; ++k) rows[i * ld + k] = 0;
}

// Inner products of R rows with S rows, added to R rows of `gram`.
template <int R, int S>
SELSHARE_INLINE void gram_tile(const Eight* x, const Eight* y, std::int64_t ld, double* gram, int p) {
    Eight sums[R][S];
    for (int r = 0; r < R; ++r)
        for (int s = 0; s < S; ++s) sums[r][s] = Constant<Eight>::of(0);
    for (std::int64_t k = 0; k < ld; ++k) {
        Eight right[S];
        for (int s = 0; s < S; ++s) right[s] = y[s * ld + k];
        for (int r = 0; r < R; ++r) {
            const Eight left = x[r * ld + k];
            for (int s = 0; s < S; ++s) sums[r][s] = sums[r][s] + left * right[s];
        }
    }
    for (int r = 0; r < R; ++r)
        for (int s = 0; s < S; ++s) gram[r * p + s] += sum(sums[r][s]);
}

// R rows of out, V vectors of columns each.
template <int R, int V>
SELSHARE_INLINE void combine_tile(const double* W, int p, const double* x, std::int64_t ld, double* out,
                                  std::int64_t out_ld) {
    Eight sums[R][V];
    for (int r = 0; r < R; ++r)
        for (int v = 0; v < V; ++v) sums[r][v] = Constant<Eight>::of(0);
    for (int k = 0; k < p; ++k) {
        Eight row[V];
        for (int v = 0; v < V; ++v) row[v] = unaligned(x + k * ld + 8 * v);
        for (int r = 0; r < R; ++r) {
            const Eight weight = Constant<Eight>::of(W[r * p + k]);
            for (int v = 0; v < V; ++v) sums[r][v] = sums[r][v] + weight * row[v];
        }
    }
    for (int r = 0; r < R; ++r)
        for (int v = 0; v < V; ++v) vectors(out + r * out_ld)[v] = sums[r][v];
}

template <int V>
SELSHARE_INLINE void combine_columns(const double* W, int r, int p, const double* x, std::int64_t ld, double* out,
                                     std::int64_t out_ld) {
    int i = 0;
    for (; i + 4 <= r; i += 4) combine_tile<4, V>(W + i * p, p, x, ld, out + i * out_ld, out_ld);
    for (; i < r; ++i) combine_tile<1, V>(W + i * p, p, x, ld, out + i * out_ld, out_ld);
}

SELSHARE_INLINE double dot(const Eight* x, const Eight* y, std::int64_t ld) {
    Eight total = Constant<Eight>::of(0);
    for (std::int64_t k = 0; k < ld; ++k) total = total + x[k] * y[k];
    return sum(total);
}

SELSHARE_INLINE void rotate_rows(const Rotation<double>& by, double* x, double* y, std::int64_t length) {
    for (std::int64_t k = 0; k < length; ++k) rotate(by, x[k], y[k]);
}

}  // namespace

SELSHARE_CLONES void pack_rows(const float* source, std::int64_t step, int p, std::int64_t columns, double scale,
                               double* rows, std::int64_t ld) {
    pack(source, step, p, columns, scale, rows, ld);
}

SELSHARE_CLONES void pack_rows(const double* source, std::int64_t step, int p, std::int64_t columns, double scale,
                               double* rows, std::int64_t ld) {
    pack(source, step, p, columns, scale, rows, ld);
}

SELSHARE_CLONES void pack_columns(const float* source, std::int64_t step, std::int64_t q, int p, double scale,
                                  double* rows, std::int64_t ld) {
    pack_transposed(source, step, q, p, scale, rows, ld);
}

SELSHARE_CLONES void pack_columns(const double* source, std::int64_t step, std::int64_t q, int p, double scale,
                                  double* rows, std::int64_t ld) {
    pack_transposed(source, step, q, p, scale, rows, ld);
}

SELSHARE_CLONES void add_gram(const double* rows, std::int64_t ld, int p, double* gram) {
    const Eight* x = vectors(rows);
    const std::int64_t length = ld / 8;
    int i = 0;
    for (; i + 4 <= p; i += 4)  // also fills some of the upper triangle, on the diagonal tiles
        for (int j = 0; j <= i; j += 4)
            gram_tile<4, 4>(x + i * length, x + j * length, length, gram + i * p + j, p);
    for (; i < p; ++i) {
        int j = 0;
        for (; j + 4 <= i; j += 4) gram_tile<1, 4>(x + i * length, x + j * length, length, gram + i * p + j, p);
        for (; j <= i; ++j) gram_tile<1, 1>(x + i * length, x + j * length, length, gram + i * p + j, p);
    }
}

SELSHARE_CLONES void combine_rows(const double* W, int r, int p, const double* rows, std::int64_t ld,
                                  std::int64_t columns, double* out, std::int64_t out_ld) {
    std::int64_t j = 0;
    for (; j + 32 <= padded(columns); j += 32) combine_columns<4>(W, r, p, rows + j, ld, out + j, out_ld);
    const std::int64_t left = (padded(columns) - j) / 8;
    if (left == 3) combine_columns<3>(W, r, p, rows + j, ld, out + j, out_ld);
    if (left == 2) combine_columns<2>(W, r, p, rows + j, ld, out + j, out_ld);
    if (left == 1) combine_columns<1>(W, r, p, rows + j, ld, out + j, out_ld);
    for (int i = 0; i < r; ++i)
        for (std::int64_t k = columns; k < padded(columns); ++k) out[i * out_ld + k] = 0;
}

SELSHARE_CLONES bool orthogonalise_rows(double* rows, std::int64_t ld, int p, double* companion, int width,
                                        double floor, double* norms) {
    const std::int64_t length = ld / 8;
    const double relative = ROUNDING * std::sqrt(static_cast<double>(ld)), least = floor * floor;
    bool rotated = true;
    for (int sweep = 0; rotated && sweep < MOST_SWEEPS; ++sweep) {
        rotated = false;
        for (int i = 0; i < p; ++i) norms[i] = dot(vectors(rows + i * ld), vectors(rows + i * ld), length);
        for (int i = 0; i < p; ++i)
            for (int j = i + 1; j < p; ++j) {
                if (norms[i] <= least || norms[j] <= least) continue;
                double *x = rows + i * ld, *y = rows + j * ld;
                const double product = dot(vectors(x), vectors(y), length);
                if (std::abs(product) <= relative * std::sqrt(norms[i]) * std::sqrt(norms[j])) continue;
                const auto by = jacobi_rotation(norms[i], norms[j], product, 0.0, 0.0);
                rotate_rows(by, x, y, ld);
                rotate_rows(by, companion + static_cast<std::int64_t>(i) * width,
                            companion + static_cast<std::int64_t>(j) * width, width);
                norms[i] = dot(vectors(x), vectors(x), length);
                norms[j] = dot(vectors(y), vectors(y), length);
                rotated = true;
            }
    }
    for (int i = 0; i < p; ++i)
        norms[i] = std::sqrt(dot(vectors(rows + i * ld), vectors(rows + i * ld), length));
    return !rotated;
}

}  // namespace selshare
