#include "cpu/block_solvers.hpp"

#include <cmath>
#include <vector>

#include "cuda/eigh.hpp"
#include "cuda/left_svd.hpp"

namespace selshare {
namespace {

// Uninitialised shared memory on a GPU: reading it before writing it must show.
template <class T>
std::vector<T> poisoned(std::int64_t items) {
    return std::vector<T>(static_cast<std::size_t>(items), static_cast<T>(NAN));
}

}  // namespace

template <class T>
void block_eigh(const T* matrices, T* values, T* vectors, int* sweeps, std::int64_t count, int n, bool backwards) {
    auto items = poisoned<T>(blocks::eigh_items(n)), rows = poisoned<T>(blocks::eigh_row_items(n));
    const auto at = blocks::eigh_space(items.data(), rows.data(), n);
    for (std::int64_t i = 0; i < count; ++i)
        sweeps[i] = blocks::block_eigh(blocks::Block{backwards}, matrices + i * n * n, values + i * n,
                                       vectors + i * n * n, at, n);
}

template <class T>
void block_left_svd(const T* matrices, T* values, T* vectors, T* right, int* sweeps, std::int64_t count, int n, int m,
                    bool backwards) {
    auto items = poisoned<T>(blocks::svd_items(n)), rows = poisoned<T>(blocks::svd_row_items(n));
    auto work = poisoned<T>(blocks::svd_work_items(n, m));
    const auto at = blocks::svd_space(items.data(), work.data(), rows.data(), n);
    for (std::int64_t i = 0; i < count; ++i)
        sweeps[i] = blocks::block_left_svd(blocks::Block{backwards}, matrices + i * n * m, values + i * n,
                                           vectors + i * n * n, right == nullptr ? nullptr : right + i * n * m, at,
                                           n, m);
}

template void block_eigh(const float*, float*, float*, int*, std::int64_t, int, bool);
template void block_eigh(const double*, double*, double*, int*, std::int64_t, int, bool);
template void block_left_svd(const float*, float*, float*, float*, int*, std::int64_t, int, int, bool);
template void block_left_svd(const double*, double*, double*, double*, int*, std::int64_t, int, int, bool);

}  // namespace selshare
