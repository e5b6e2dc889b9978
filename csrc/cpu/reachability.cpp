#include "reachability.hpp"

#include <cstring>
#include <limits>
#include <vector>

#include "dispatch.hpp"
#include "scan.hpp"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("fp-contract=off")  // a fused multiply-add rounds once: squares would depend on the processor
#endif

namespace selshare {
namespace {

constexpr std::int64_t LANES = 8;
constexpr std::int64_t TILE = 32;

template <bool SUM>
SELSHARE_INLINE double squared(const double* a, const double* b, std::int64_t d) {
    double lanes[LANES] = {};
    std::int64_t whole = d - d % LANES;
    for (std::int64_t f = 0; f < whole; f += LANES)
        for (std::int64_t l = 0; l < LANES; ++l) {
            double step = SUM ? a[f + l] + b[f + l] : a[f + l] - b[f + l];
            double square = step * step;
            lanes[l] += square;
        }
    for (std::int64_t f = whole; f < d; ++f) {
        double step = SUM ? a[f] + b[f] : a[f] - b[f];
        double square = step * step;
        lanes[f - whole] += square;
    }
    double total = lanes[0];
    for (std::int64_t l = 1; l < LANES; ++l) total += lanes[l];
    return total;
}

SELSHARE_CLONES void pairs_of(const double* values, std::int64_t d, bool sum, const std::int32_t* a,
                              const std::int32_t* b, std::int64_t count, double* out) {
    for (std::int64_t p = 0; p < count; ++p) {
        const double *x = values + a[p] * d, *y = values + b[p] * d;
        out[p] = sum ? squared<true>(x, y, d) : squared<false>(x, y, d);
    }
}

// The square of rows i … and columns j …, and its mirror image.
SELSHARE_CLONES void tile_of(const double* values, std::int64_t n, std::int64_t d, bool sum, std::int64_t row,
                             std::int64_t column, double* out) {
    for (std::int64_t i = row; i < std::min(row + TILE, n); ++i)
        for (std::int64_t j = std::max(column, i + 1); j < std::min(column + TILE, n); ++j) {
            const double *x = values + i * d, *y = values + j * d;
            out[i * n + j] = out[j * n + i] = sum ? squared<true>(x, y, d) : squared<false>(x, y, d);
        }
}

SELSHARE_CLONES void kth_of_row(const double* row, std::int64_t i, std::int64_t n, double* smallest, std::int64_t k) {
    std::fill(smallest, smallest + k, std::numeric_limits<double>::infinity());
    auto nearer = [&](std::int64_t j) { return row[j] < smallest[k - 1]; };
    auto keep = [&](std::int64_t j) {
        if (j == i) return;
        std::int64_t slot = k - 1;
        for (; slot > 0 && smallest[slot - 1] > row[j]; --slot) smallest[slot] = smallest[slot - 1];
        smallest[slot] = row[j];
    };
    scan<double>(n, nearer, keep);
}

template <class T>
struct Vector {
    typedef T type __attribute__((vector_size(PART * sizeof(T))));
};
template <class T>
SELSHARE_INLINE typename Vector<T>::type load(const T* from) {
    typename Vector<T>::type vector;
    std::memcpy(&vector, from, sizeof vector);
    return vector;
}

// Puts a value in its place without branches: every entry stays, becomes its left neighbour, or becomes the value.
// What stands before the first entry is read, and not used.
template <class T>
SELSHARE_INLINE void enter(const Neighbours<T>& lists, std::int64_t point, T value, std::int64_t other) {
    using Names = typename Vector<std::int32_t>::type;
    T* values = lists.values + point * lists.kept;
    std::int32_t* names = lists.indices + point * lists.kept;
    const Names name = Names{} + static_cast<std::int32_t>(other);
    for (std::int64_t start = lists.kept - PART; start >= 0; start -= PART) {
        auto here = load(values + start), left = load(values + start - 1);
        auto here_name = load(names + start), left_name = load(names + start - 1);
        if (start == 0) left[0] = std::numeric_limits<T>::infinity();
        auto stays = here >= value, moves = left < value;
        auto stays_name = __builtin_convertvector(stays, Names), moves_name = __builtin_convertvector(moves, Names);
        auto placed = stays ? here : (moves ? left : value - typename Vector<T>::type{});
        auto placed_name = stays_name ? here_name : (moves_name ? left_name : name);
        std::memcpy(values + start, &placed, sizeof placed);
        std::memcpy(names + start, &placed_name, sizeof placed_name);
    }
    lists.last[point] = values[lists.kept - 1];
}

template <class T>
SELSHARE_INLINE void nearest_of_row(const Block<T>& block, const Neighbours<T>& lists, std::int64_t r) {
    const T* products = block.products + r * block.columns;
    const T* half = block.half + block.column;
    std::int64_t point = block.row + r;
    const T& last = lists.last[point];
    scan<T>(
        block.columns, [&](std::int64_t j) { return products[j] - half[j] > last; },
        [&](std::int64_t j) {
            if (block.column + j != point) enter(lists, point, products[j] - half[j], block.column + j);
        });
}

// Row r, as seen from its columns first … first + count.
template <class T>
SELSHARE_INLINE void nearest_of_columns(const Block<T>& block, const Neighbours<T>& lists, std::int64_t r,
                                        std::int64_t first, std::int64_t count) {
    const T* products = block.products + r * block.columns + first;
    const T half = block.half[block.row + r];
    const T* last = lists.last + block.column + first;
    scan<T>(
        count, [&](std::int64_t j) { return products[j] - half > last[j]; },
        [&](std::int64_t j) { enter(lists, block.column + first + j, products[j] - half, block.row + r); });
}

SELSHARE_CLONES void rows_f32(Block<float> block, Neighbours<float> lists, std::int64_t start, std::int64_t stop) {
    for (std::int64_t r = start; r < stop; ++r) nearest_of_row(block, lists, r);
}
SELSHARE_CLONES void rows_f64(Block<double> block, Neighbours<double> lists, std::int64_t start, std::int64_t stop) {
    for (std::int64_t r = start; r < stop; ++r) nearest_of_row(block, lists, r);
}
SELSHARE_CLONES void columns_f32(Block<float> block, Neighbours<float> lists, std::int64_t start, std::int64_t stop) {
    for (std::int64_t r = 0; r < block.rows; ++r) nearest_of_columns(block, lists, r, start, stop - start);
}
SELSHARE_CLONES void columns_f64(Block<double> block, Neighbours<double> lists, std::int64_t start,
                                 std::int64_t stop) {
    for (std::int64_t r = 0; r < block.rows; ++r) nearest_of_columns(block, lists, r, start, stop - start);
}
void rows_of(Block<float> block, Neighbours<float> lists, std::int64_t start, std::int64_t stop) {
    rows_f32(block, lists, start, stop);
}
void rows_of(Block<double> block, Neighbours<double> lists, std::int64_t start, std::int64_t stop) {
    rows_f64(block, lists, start, stop);
}
void columns_of(Block<float> block, Neighbours<float> lists, std::int64_t start, std::int64_t stop) {
    columns_f32(block, lists, start, stop);
}
void columns_of(Block<double> block, Neighbours<double> lists, std::int64_t start, std::int64_t stop) {
    columns_f64(block, lists, start, stop);
}

template <class T>
SELSHARE_INLINE void above(const Block<T>& block, std::int64_t r, T cut, std::vector<std::int32_t>& found) {
    const T* products = block.products + r * block.columns;
    const T* half = block.half + block.column;
    scan<T>(
        block.columns, [&](std::int64_t j) { return products[j] - half[j] >= cut; },
        [&](std::int64_t j) { found.push_back(static_cast<std::int32_t>(block.column + j)); });
}
SELSHARE_CLONES void above_f32(Block<float> block, std::int64_t r, float cut, std::vector<std::int32_t>& found) {
    above(block, r, cut, found);
}
SELSHARE_CLONES void above_f64(Block<double> block, std::int64_t r, double cut, std::vector<std::int32_t>& found) {
    above(block, r, cut, found);
}
void above_of(Block<float> block, std::int64_t r, float cut, std::vector<std::int32_t>& found) {
    above_f32(block, r, cut, found);
}
void above_of(Block<double> block, std::int64_t r, double cut, std::vector<std::int32_t>& found) {
    above_f64(block, r, cut, found);
}

}  // namespace

void squared_pairs(const double* values, std::int64_t d, bool sum, const std::int32_t* a, const std::int32_t* b,
                   std::int64_t count, double* out, int threads) {
    constexpr std::int64_t many = 1024;
#pragma omp parallel for num_threads(threads) schedule(dynamic) if (count > many)
    for (std::int64_t start = 0; start < count; start += many)
        pairs_of(values, d, sum, a + start, b + start, std::min(many, count - start), out + start);
}

void squared_matrix(const double* values, std::int64_t n, std::int64_t d, bool sum, double* out, int threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (std::int64_t row = 0; row < n; row += TILE) {
        for (std::int64_t column = row; column < n; column += TILE) tile_of(values, n, d, sum, row, column, out);
        for (std::int64_t i = row; i < std::min(row + TILE, n); ++i) out[i * n + i] = 0.0;
    }
}

void kth_smallest(const double* matrix, std::int64_t n, std::int64_t k, double* out, int threads) {
#pragma omp parallel num_threads(threads)
    {
        std::vector<double> smallest(k);
#pragma omp for schedule(static)
        for (std::int64_t i = 0; i < n; ++i) {
            kth_of_row(matrix + i * n, i, n, smallest.data(), k);
            out[i] = smallest[k - 1];
        }
    }
}

template <class T>
void keep_nearest(Block<T> block, Neighbours<T> lists, int threads) {
    // Each list belongs to one thread: rows are dealt out first, columns after.
    bool diagonal = block.row == block.column;
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(dynamic) nowait
        for (std::int64_t start = 0; start < block.rows; start += CHUNK)
            rows_of(block, lists, start, std::min(start + CHUNK, block.rows));
        if (!diagonal) {
#pragma omp for schedule(dynamic)
            for (std::int64_t start = 0; start < block.columns; start += 4 * CHUNK)
                columns_of(block, lists, start, std::min(start + 4 * CHUNK, block.columns));
        }
    }
}

template <class T>
std::int64_t pairs_above(Block<T> block, const std::int32_t* points, const T* cut, Pairs found, int threads) {
    std::int64_t count = 0;
#pragma omp parallel num_threads(threads)
    {
        std::vector<std::int32_t> others;
#pragma omp for schedule(dynamic)
        for (std::int64_t r = 0; r < block.rows; ++r) {
            others.clear();
            above_of(block, r, cut[r], others);
            std::int64_t size = static_cast<std::int64_t>(others.size()), at;
#pragma omp atomic capture
            {
                at = count;
                count += size;
            }
            for (std::int64_t t = 0; t < size && at + t < found.capacity; ++t) {
                found.a[at + t] = points[r];
                found.b[at + t] = others[t];
            }
        }
    }
    return count;
}

template void keep_nearest(Block<float>, Neighbours<float>, int);
template void keep_nearest(Block<double>, Neighbours<double>, int);
template std::int64_t pairs_above(Block<float>, const std::int32_t*, const float*, Pairs, int);
template std::int64_t pairs_above(Block<double>, const std::int32_t*, const double*, Pairs, int);

}  // namespace selshare
