// The block solvers of csrc/cuda, one matrix after another on the CPU: for tests, and slow. They tell what the same
// source gives on a GPU, up to fused multiply-adds.
#pragma once

#include <cstdint>

namespace selshare {

// As selshare_eigh_f32 and selshare_left_svd_f32 (csrc/cuda/selshare_cuda.h). The items between two barriers are taken
// in the opposite order where `backwards`: independent ones give the same bits.
template <class T>
void block_eigh(const T* matrices, T* values, T* vectors, int* sweeps, std::int64_t count, int n, bool backwards);
template <class T>
void block_left_svd(const T* matrices, T* values, T* vectors, T* right, int* sweeps, std::int64_t count, int n, int m,
                    bool backwards);

}  // namespace selshare
