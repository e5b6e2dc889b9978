#include "cpu/spectrum.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace selshare {
namespace {

using Eight = Lanes<double>;

// The matrices, then seven vectors of length n.
struct Parts {
    Eight *a, *d, *e, *tau, *v, *w, *next, *p;
    Parts(Eight* memory, int n, int ld) : a(memory), d(a + static_cast<std::ptrdiff_t>(n) * ld) {
        e = d + n, tau = e + n, v = tau + n, w = v + n, next = w + n, p = next + n;
    }
};

SELSHARE_CLONES void reduce(Parts part, int n, int ld) {
    tridiagonalise(part.a, n, ld, part.d, part.e, part.tau, part.v, part.w, part.next, part.p);
}

// Iterates until diagonal or `turns` is full; returns whether it is done. `used` counts turns, `left` sweeps.
SELSHARE_CLONES bool iterate(ImplicitQL<double>& iteration, int n, std::vector<Turn<double>>& turns,
                             std::vector<Sweep>& sweeps, std::ptrdiff_t& used, int& left) {
    while (iteration.find_blocks()) {
        if (used + n > static_cast<std::ptrdiff_t>(turns.size()) || left-- == 0) return false;
        sweeps.push_back(iteration.sweep(turns.data(), used));
        used += sweeps.back().last - sweeps.back().first;
    }
    return true;
}

template <int COLUMNS>
SELSHARE_INLINE void unwind(const Parts& part, int n, int ld, const std::vector<Turn<double>>& turns,
                            const std::vector<Sweep>& sweeps, Eight* x) {
    unwind_turns<COLUMNS>(x, n, turns.data(), sweeps.data(), static_cast<int>(sweeps.size()));
    apply_reflectors<COLUMNS>(part.a, part.tau, n, ld, x);
}

SELSHARE_CLONES void unwind_all(Parts part, int n, int ld, const std::vector<Turn<double>>& turns,
                                const std::vector<Sweep>& sweeps, Eight* x, int count) {
    int j = 0;
    for (; j + 4 <= count; j += 4) unwind<4>(part, n, ld, turns, sweeps, x + static_cast<std::ptrdiff_t>(j) * n);
    for (; j < count; ++j) unwind<1>(part, n, ld, turns, sweeps, x + static_cast<std::ptrdiff_t>(j) * n);
}

}  // namespace

void Spectrum::reset(int n) {
    n_ = n;
    ld_ = n | 1;
    memory_.assign(static_cast<std::size_t>(n) * ld_ + 7 * static_cast<std::size_t>(n), Eight{});
    values_.resize(static_cast<std::size_t>(lanes) * n);
    order_.resize(values_.size());
    std::fill(scale_, scale_ + lanes, 1.0);
    std::fill(live_, live_ + lanes, 0);
}

void Spectrum::set(int lane, const double* matrix, int p) {
    double largest = 0;  // of a positive semi-definite matrix, on the diagonal
    for (int i = 0; i < p; ++i) largest = std::max(largest, matrix[i * p + i]);
    const int exponent = largest > 0 ? std::clamp(std::ilogb(largest), -1000, 1000) : 0;
    const double down = std::ldexp(1.0, -exponent);
    scale_[lane] = std::ldexp(1.0, exponent);
    live_[lane] = p;
    for (int i = 0; i < p; ++i)
        for (int j = 0; j <= i; ++j) memory_[i * ld_ + j].value[lane] = matrix[i * p + j] * down;
}

bool Spectrum::solve() {
    const Parts part(memory_.data(), n_, ld_);
    reduce(part, n_, ld_);
    ImplicitQL<double> iteration(part.d, part.e, n_);
    std::ptrdiff_t used = 0;
    int left = SWEEPS_PER_VALUE * n_;
    sweeps_.clear();
    turns_.resize(std::max<std::size_t>(turns_.size(), 2 * static_cast<std::size_t>(n_) * n_ + n_));
    while (!iterate(iteration, n_, turns_, sweeps_, used, left)) {
        if (left < 0) return false;
        turns_.resize(2 * turns_.size());
    }
    sort();
    return true;
}

void Spectrum::sort() {
    const Eight* d = Parts(memory_.data(), n_, ld_).d;
    for (int lane = 0; lane < lanes; ++lane) {
        int* order = order_.data() + static_cast<std::size_t>(lane) * n_;
        std::iota(order, order + n_, 0);
        std::stable_sort(order, order + live_[lane], [&](int i, int j) { return d[i].value[lane] > d[j].value[lane]; });
        for (int j = 0; j < n_; ++j)
            values_[static_cast<std::size_t>(lane) * n_ + j] = d[order[j]].value[lane] * scale_[lane];
    }
}

void Spectrum::find_vectors(int count) {
    vectors_.assign(static_cast<std::size_t>(count) * n_, Eight{});
    for (int lane = 0; lane < lanes; ++lane)
        for (int j = 0; j < count; ++j)
            vectors_[static_cast<std::size_t>(j) * n_ + order_[static_cast<std::size_t>(lane) * n_ + j]].value[lane] =
                1.0;
    unwind_all(Parts(memory_.data(), n_, ld_), n_, ld_, turns_, sweeps_, vectors_.data(), count);
}

void Spectrum::get(int lane, int count, int p, double* rows) const {
    for (int j = 0; j < count; ++j)
        for (int i = 0; i < p; ++i) rows[j * p + i] = vectors_[static_cast<std::size_t>(j) * n_ + i].value[lane];
}

}  // namespace selshare
