// Tensor trains of many tensors.
#pragma once

#include <cstdint>

namespace selshare {

struct TrainShape {
    int dimensions;               // d, at least 2
    const std::int64_t* modes;    // n_1 .. n_d
    const std::int64_t* caps;     // r_1 .. r_{d-1}: the largest ranks allowed, and the cores' sizes
    double allowed;               // each step may discard this norm, relative to the tensor's
};

// Factorises `count` contiguous tensors. cores[k] (count x caps[k-1] x n_k x caps[k], zeroed by the caller) gets the
// cores, ranks (count x (d - 1)) the ranks. Float input may lose singular values below 1e-7 of the tensor's norm to
// the Gram matrices; double input loses none. Returns -1; or a tensor that holds NaN or Inf; or -2 - i where the
// iteration for tensor i did not converge.
std::int64_t tt_svd(const float* tensors, std::int64_t count, const TrainShape& shape, float* const* cores,
                    std::int64_t* ranks, int threads);
std::int64_t tt_svd(const double* tensors, std::int64_t count, const TrainShape& shape, double* const* cores,
                    std::int64_t* ranks, int threads);

}  // namespace selshare
