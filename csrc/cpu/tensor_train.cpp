// Each thread takes eight tensors through all steps, so that their eigenproblems share SIMD lanes. Step k unfolds what
// is left of a tensor to m = r_{k-1} n_k rows and c columns, forms the Gram matrix of the smaller side, finds its leading
// eigenvectors, writes the core, and projects: the tensor itself is read twice.
//
// Where the rows are the smaller side, the eigenvectors are the core and the projection is the next rest. Where the
// columns are ("tall"), the eigenvectors w_j give rows y_j = C w_j, which one-sided Jacobi makes orthogonal; then
// y_j / |y_j| is the core and |y_j| w_j the next rest.
//
// A Gram matrix in double precision knows squares of singular values to an error of eps |T|². With `Exact` (double
// input) that is taken where the part discarded is far above it; otherwise all rows are turned by the eigenvectors
// and made orthogonal by one-sided Jacobi, which keeps every singular value to eps |T|.
#include "cpu/tensor_train.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <type_traits>
#include <vector>

#include "cpu/rows.hpp"
#include "cpu/spectrum.hpp"

namespace selshare {
namespace {

constexpr int WIDTH = Spectrum::lanes;
constexpr std::int64_t CHUNK = 512;     // columns of the input converted at a time
constexpr double CLEAR = 1.0 / (1 << 24);  // of |T|²: squares this large are beyond the error of a Gram matrix
constexpr double SMALLEST = 1e-280, FLOOR = 2.3e-16;

// Grows, never shrinks; 64-byte aligned.
class Scratch {
  public:
    double* get(std::int64_t doubles) {
        if (doubles > static_cast<std::int64_t>(8 * data_.size())) data_.resize(doubles / 8 + 2);
        return reinterpret_cast<double*>(data_.data());
    }

  private:
    std::vector<Lanes<double>> data_;
};

// What is left of a tensor, unfolded: m rows of c columns, `step` apart. Aligned ones fulfil rows.hpp.
template <class S>
struct Unfolding {
    const S* data;
    std::int64_t step;
    int m;
    std::int64_t c;
    double scale;
    bool aligned;

    bool tall() const { return m > c; }
    int side() const { return static_cast<int>(std::min<std::int64_t>(m, c)); }
    std::int64_t length() const { return std::max<std::int64_t>(m, c); }
};

// The fewest leading squares whose tail is at most `allowed`, at least one, at most `cap`; and that tail.
struct Kept {
    int rank;
    double tail;
};

Kept kept_squares(const double* squares, int p, double allowed, std::int64_t cap) {
    int rank = p;
    double tail = 0;
    while (rank > 1 && (tail + squares[rank - 1] <= allowed || rank > cap)) tail += squares[--rank];
    return {rank, tail};
}

// Makes the first entry of largest magnitude positive: +1 or -1.
double sign_of(const double* x, std::int64_t length) {
    double largest = 0;
    for (std::int64_t i = 0; i < length; ++i)
        if (std::abs(x[i]) > std::abs(largest)) largest = x[i];
    return largest < 0 ? -1.0 : 1.0;
}

template <class T>
class Worker {
    static constexpr bool exact = std::is_same_v<T, double>;

  public:
    explicit Worker(const TrainShape& shape) : shape_(shape) {}

    // Tensors first .. first + present - 1. Returns what tt_svd does.
    std::int64_t run(const T* tensors, std::int64_t first, int present, T* const* cores, std::int64_t* ranks) {
        const int d = shape_.dimensions;
        first_ = first;
        cores_ = cores;
        std::int64_t size = 1;
        for (int k = 0; k < d; ++k) size *= shape_.modes[k];
        std::int64_t columns = size;
        std::fill(rank_, rank_ + WIDTH, 1);
        for (int k = 0; k < d - 1; ++k) {
            columns /= shape_.modes[k];
            mode_ = static_cast<int>(shape_.modes[k]);
            blocks_ = k == d - 2 ? 1 : shape_.modes[k + 1];
            const auto input = [&](int lane) {
                return Unfolding<T>{tensors + (first + lane) * size, columns, mode_, columns, scale_[lane], false};
            };
            const auto rest = [&](int lane) {
                return Unfolding<double>{rest_ + lane * rest_size_, padded(columns), rank_[lane] * mode_, columns, 1.0,
                                         true};
            };
            const std::int64_t bad = k == 0 ? step(k, present, input) : step(k, present, rest);
            if (bad != -1) return bad;
            for (int lane = 0; lane < present; ++lane) ranks[(first + lane) * (d - 1) + k] = rank_[lane];
        }
        for (int lane = 0; lane < present; ++lane) write_last(lane);
        return -1;
    }

  private:
    template <class View>
    std::int64_t step(int k, int present, const View& view) {
        int n = 1;
        for (int lane = 0; lane < present; ++lane) n = std::max(n, view(lane).side());
        spectrum_.reset(n);
        for (int lane = 0; lane < present; ++lane) {
            if (k == 0) scale_[lane] = 1;
            double trace = set_gram(lane, view(lane));
            if (k == 0) {
                if (!(trace >= SMALLEST && std::isfinite(trace))) {
                    if (!rescale(lane, view(lane))) return first_ + lane;
                    trace = set_gram(lane, view(lane));
                }
                norm_[lane] = trace;
            }
        }
        if (!spectrum_.solve()) return -2 - first_;
        Kept kept[WIDTH];
        bool all[WIDTH] = {};
        int most = 1;
        for (int lane = 0; lane < present; ++lane) {
            const double allowed = shape_.allowed * shape_.allowed * norm_[lane];
            const double* squares = spectrum_.values(lane);
            const int p = view(lane).side();
            kept[lane] = kept_squares(squares, p, allowed, shape_.caps[k]);
            const double clear = kept[lane].rank == p ? squares[p - 1] : kept[lane].tail;
            all[lane] = exact && clear < CLEAR * norm_[lane];
            most = std::max(most, all[lane] ? p : kept[lane].rank);
        }
        spectrum_.find_vectors(most);
        const std::int64_t rows = *std::max_element(rank_, rank_ + present), next = blocks_;
        const std::int64_t bound = std::min<std::int64_t>(shape_.caps[k], rows * mode_);
        next_size_ = bound * next * padded(view(0).c / next) + 8;
        next_ = spare_.get(WIDTH * next_size_);
        for (int lane = 0; lane < present; ++lane) {
            const auto unfolding = view(lane);
            if (norm_[lane] == 0)
                zero_core(k, lane, unfolding);
            else if (!unfolding.tall() && !all[lane])
                keep_vectors(k, lane, unfolding, kept[lane].rank);
            else if (!keep_rows(k, lane, unfolding, all[lane] ? 0 : kept[lane].rank))
                return -2 - first_ - lane;
        }
        std::swap(current_, spare_);
        rest_ = next_;
        rest_size_ = next_size_;
        return -1;
    }

    // The Gram matrix of the smaller side into the lane's spectrum; returns its trace.
    template <class S>
    double set_gram(int lane, const Unfolding<S>& u) {
        const int p = u.side();
        double* gram = gram_.get(static_cast<std::int64_t>(p) * p);
        std::fill(gram, gram + static_cast<std::int64_t>(p) * p, 0.0);
        if (u.tall()) {
            add_gram(packed(u), padded(u.m), p, gram);
        } else if (u.aligned) {
            add_gram(reinterpret_cast<const double*>(u.data), u.step, p, gram);
        } else {
            for (std::int64_t j = 0; j < u.c; j += CHUNK) {
                const std::int64_t width = std::min(CHUNK, u.c - j);
                double* chunk = chunk_.get(p * padded(width));
                pack_rows(u.data + j, u.step, p, width, u.scale, chunk, padded(width));
                add_gram(chunk, padded(width), p, gram);
            }
        }
        double trace = 0;
        for (int i = 0; i < p; ++i) trace += gram[static_cast<std::int64_t>(i) * p + i];
        if (std::isfinite(trace)) spectrum_.set(lane, gram, p);
        return trace;
    }

    // Chooses a power of two that brings the largest entry near 1. False if an entry is not finite.
    template <class S>
    bool rescale(int lane, const Unfolding<S>& u) {
        double largest = 0;
        for (std::int64_t i = 0; i < u.m * u.c; ++i) {
            if (!std::isfinite(u.data[i])) return false;
            largest = std::max(largest, std::abs(static_cast<double>(u.data[i])));
        }
        if (largest > 0) scale_[lane] = std::ldexp(1.0, -std::clamp(std::ilogb(largest), -1000, 1000));
        return true;
    }

    // All of the smaller side's rows, aligned.
    template <class S>
    double* packed(const Unfolding<S>& u) {
        double* rows = packed_.get(u.side() * padded(u.length()));
        if (u.tall())
            pack_columns(u.data, u.step, u.m, u.side(), u.scale, rows, padded(u.m));
        else
            pack_rows(u.data, u.step, u.m, u.c, u.scale, rows, padded(u.c));
        return rows;
    }

    // The core is the first `rank` eigenvectors, the rest their products with the rows.
    template <class S>
    void keep_vectors(int k, int lane, const Unfolding<S>& u, int rank) {
        double* W = vectors_.get(static_cast<std::int64_t>(rank) * u.m);
        spectrum_.get(lane, rank, u.m, W);
        for (int j = 0; j < rank; ++j) {
            double* row = W + static_cast<std::int64_t>(j) * u.m;
            const double sign = sign_of(row, u.m);
            for (int i = 0; i < u.m; ++i) row[i] *= sign;
            write_column(k, lane, j, row, u.m, 1.0);
        }
        rank_[lane] = rank;
        project(lane, W, rank, u);
    }

    // The rest's row (j, i), i < blocks_, is the i-th part of the j-th row of W C.
    template <class S>
    void project(int lane, const double* W, int rank, const Unfolding<S>& u) {
        const std::int64_t part = u.c / blocks_, ld = padded(part);
        double* out = next_ + lane * next_size_;
        if (u.aligned) {
            for (std::int64_t i = 0; i < blocks_; ++i)
                combine_rows(W, rank, u.m, reinterpret_cast<const double*>(u.data) + i * part, u.step, part,
                             out + i * ld, blocks_ * ld);
            return;
        }
        const std::int64_t together = std::max<std::int64_t>(1, CHUNK / part), piece = std::min(part, CHUNK);
        for (std::int64_t i = 0; i < blocks_; i += together)
            for (std::int64_t j = 0; j < part; j += piece) {
                const std::int64_t here = std::min(together, blocks_ - i);
                const std::int64_t width = here * std::min(piece, part - j), step = padded(width);
                double* chunk = chunk_.get(u.m * step + 8);
                pack_rows(u.data + i * part + j, u.step, u.m, width, u.scale, chunk, step);
                for (std::int64_t b = 0; b < here; ++b)
                    combine_rows(W, rank, u.m, chunk + b * part, step, width / here, out + (i + b) * ld + j,
                                 blocks_ * ld);
            }
    }

    // Orthogonal rows by one-sided Jacobi: of the first `rank` eigenvectors, or of all (0), and then as many as needed.
    template <class S>
    bool keep_rows(int k, int lane, const Unfolding<S>& u, int rank) {
        const int p = u.side(), count = rank == 0 ? p : rank;
        const std::int64_t length = u.length(), ld = padded(length);
        double* W = vectors_.get(static_cast<std::int64_t>(count) * p);
        spectrum_.get(lane, count, p, W);
        double* rows = rows_.get(count * ld);
        combine_rows(W, count, p, packed(u), ld, length, rows, ld);
        double* norms = gram_.get(2 * count);
        if (!orthogonalise_rows(rows, ld, count, W, p, FLOOR * std::sqrt(norm_[lane]), norms)) return false;
        std::vector<int> order(count);
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](int i, int j) { return norms[i] > norms[j]; });
        double* squares = norms + count;
        for (int j = 0; j < count; ++j) squares[j] = norms[order[j]] * norms[order[j]];
        if (rank == 0)
            rank = kept_squares(squares, p, shape_.allowed * shape_.allowed * norm_[lane], shape_.caps[k]).rank;
        for (int j = 0; j < rank; ++j) {
            const double* row = rows + order[j] * ld;
            const double* vector = W + static_cast<std::int64_t>(order[j]) * p;
            const double norm = norms[order[j]], sign = sign_of(u.tall() ? row : vector, u.m);
            write_column(k, lane, j, u.tall() ? row : vector, u.m, u.tall() ? sign / norm : sign);
            write_rest(lane, j, u.tall() ? vector : row, u.c, u.tall() ? sign * norm : sign);
        }
        rank_[lane] = rank;
        return true;
    }

    // A tensor of zeros: rank one, the first unit vector, and nothing left.
    template <class S>
    void zero_core(int k, int lane, const Unfolding<S>& u) {
        double* unit = vectors_.get(std::max<std::int64_t>(u.m, u.c));
        std::fill(unit, unit + std::max<std::int64_t>(u.m, u.c), 0.0);
        write_rest(lane, 0, unit, u.c, 1.0);
        unit[0] = 1;
        write_column(k, lane, 0, unit, u.m, 1.0);
        rank_[lane] = 1;
    }

    void write_column(int k, int lane, int column, const double* values, int m, double factor) {
        const std::int64_t stride = shape_.caps[k], rows = (k == 0 ? 1 : shape_.caps[k - 1]) * mode_;
        T* core = cores_[k] + (first_ + lane) * rows * stride + column;
        for (int i = 0; i < m; ++i) core[i * stride] = static_cast<T>(values[i] * factor);
    }

    void write_rest(int lane, int row, const double* values, std::int64_t c, double factor) {
        const std::int64_t part = c / blocks_, ld = padded(part);
        double* out = next_ + lane * next_size_ + row * blocks_ * ld;
        for (std::int64_t i = 0; i < blocks_; ++i)
            for (std::int64_t j = 0; j < ld; ++j) out[i * ld + j] = j < part ? values[i * part + j] * factor : 0.0;
    }

    void write_last(int lane) {
        const int last = shape_.dimensions - 1;
        const std::int64_t mode = shape_.modes[last], ld = padded(mode);
        T* core = cores_[last] + (first_ + lane) * shape_.caps[last - 1] * mode;
        const double* rest = rest_ + lane * rest_size_;
        for (int j = 0; j < rank_[lane]; ++j)
            for (std::int64_t i = 0; i < mode; ++i) core[j * mode + i] = static_cast<T>(rest[j * ld + i] / scale_[lane]);
    }

    const TrainShape& shape_;
    Spectrum spectrum_;
    Scratch current_, spare_, gram_, chunk_, packed_, rows_, vectors_;
    double *rest_ = nullptr, *next_ = nullptr;
    std::int64_t rest_size_ = 0, next_size_ = 0, first_ = 0, blocks_ = 1;
    T* const* cores_ = nullptr;
    int mode_ = 1;
    int rank_[WIDTH] = {};
    double scale_[WIDTH] = {}, norm_[WIDTH] = {};  // norm_ is |T|², of the scaled tensor
};

template <class T>
std::int64_t run(const T* tensors, std::int64_t count, const TrainShape& shape, T* const* cores, std::int64_t* ranks,
                 int threads) {
    const std::int64_t blocks = (count + WIDTH - 1) / WIDTH;
    threads = static_cast<int>(std::max<std::int64_t>(1, std::min<std::int64_t>(threads, blocks)));
    std::int64_t result = -1;
#pragma omp parallel num_threads(threads)
    {
        Worker<T> worker(shape);
#pragma omp for schedule(dynamic)
        for (std::int64_t block = 0; block < blocks; ++block) {
            const int present = static_cast<int>(std::min<std::int64_t>(WIDTH, count - block * WIDTH));
            const std::int64_t bad = worker.run(tensors, block * WIDTH, present, cores, ranks);
            if (bad != -1) {
#pragma omp critical(selshare_tt_svd_result)
                if (result == -1 || bad >= 0) result = bad;
            }
        }
    }
    return result;
}

}  // namespace

std::int64_t tt_svd(const float* tensors, std::int64_t count, const TrainShape& shape, float* const* cores,
                    std::int64_t* ranks, int threads) {
    return run(tensors, count, shape, cores, ranks, threads);
}

std::int64_t tt_svd(const double* tensors, std::int64_t count, const TrainShape& shape, double* const* cores,
                    std::int64_t* ranks, int threads) {
    return run(tensors, count, shape, cores, ranks, threads);
}

}  // namespace selshare
