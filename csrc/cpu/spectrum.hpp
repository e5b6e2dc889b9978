// The leading eigenvectors of up to eight symmetric positive semi-definite matrices at once, one per SIMD lane.
#pragma once

#include <cstddef>
#include <vector>

#include "cpu/lanes.hpp"
#include "cpu/tridiagonal.hpp"

namespace selshare {

class Spectrum {
  public:
    static constexpr int lanes = Lanes<double>::count;

    // Makes room for matrices of size n and sets all lanes to zero.
    void reset(int n);

    // Lane `lane` becomes the symmetric matrix whose lower triangle is `matrix` (p x p, contiguous), p <= n.
    void set(int lane, const double* matrix, int p);

    // Diagonalises; false if some lane did not converge.
    bool solve();

    // The p eigenvalues of a lane, descending; those of zero may have come out a little below it.
    const double* values(int lane) const { return values_.data() + static_cast<std::size_t>(lane) * n_; }

    // Computes the first `count` eigenvectors of all lanes.
    void find_vectors(int count);

    // Copies vectors 0 .. count - 1 of a lane to rows of p items.
    void get(int lane, int count, int p, double* rows) const;

  private:
    void sort();

    int n_ = 0, ld_ = 0;
    std::vector<Lanes<double>> memory_, vectors_;
    std::vector<Turn<double>> turns_;
    std::vector<Sweep> sweeps_;
    std::vector<double> values_;
    std::vector<int> order_;
    double scale_[lanes] = {};
    int live_[lanes] = {};  // sizes of the matrices; padding is decoupled from them and comes last
};

}  // namespace selshare
