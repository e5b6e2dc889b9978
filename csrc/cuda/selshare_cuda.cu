// The kernels around the block solvers, and the C interface. A block solves matrices blockIdx.x, + gridDim.x, …; what
// does not fit into shared memory lives in a piece of the workspace per block, small enough to stay in the L2 cache.
#include "cuda/selshare_cuda.h"

#include <cuda_runtime.h>

#include <algorithm>

#include "cuda/eigh.hpp"
#include "cuda/left_svd.hpp"

namespace selshare::blocks {
namespace {

constexpr int MOST_THREADS = 512;  // two such blocks leave a thread 64 registers, enough for all kernels
constexpr int LARGEST = SELSHARE_LARGEST;
constexpr std::int64_t MOST_BLOCKS = 1 << 30;

// Where the two large arrays are, as selshare_plan says: the first is the SVD's matrix, the second the vectors.
enum Shared { BOTH = 0, FIRST = 1, NEITHER = 2 };

int threads_for(int n) { return n <= 16 ? 32 : n <= 32 ? 128 : n <= 64 ? 256 : MOST_THREADS; }

// Places arrays of `first` and `second` items beside `small` ones. With a workspace there are two blocks per
// multiprocessor, which hide each other's barriers.
int make_plan(int limit, int processors, int item, std::int64_t count, int n, std::size_t small, std::size_t first,
              std::size_t second, selshare_plan& plan) {
    if (n < 1 || n > LARGEST || count < 0 || (item != sizeof(float) && item != sizeof(double)))
        return cudaErrorInvalidValue;
    const std::size_t room = static_cast<std::size_t>(limit) / item;
    if (small > room) return cudaErrorInvalidConfiguration;
    plan.shared = small + first + second <= room ? BOTH : small + first <= room ? FIRST : NEITHER;
    plan.shared_bytes = item * (small + (plan.shared == NEITHER ? 0 : first) + (plan.shared == BOTH ? second : 0));
    plan.threads = threads_for(n);
    plan.blocks = static_cast<int>(std::min<std::int64_t>(count, plan.shared == BOTH ? MOST_BLOCKS : 2 * processors));
    const std::size_t outside = (plan.shared == BOTH ? 0 : second) + (plan.shared == NEITHER ? first : 0);
    plan.workspace_bytes = item * outside * plan.blocks;
    return cudaSuccess;
}

int plan_eigh(int limit, int processors, int item, std::int64_t count, int n, selshare_plan& plan) {
    return make_plan(limit, processors, item, count, n, eigh_items(n), 0, eigh_row_items(n), plan);
}

int plan_left_svd(int limit, int processors, int item, std::int64_t count, int n, int m, selshare_plan& plan) {
    if (m < 1) return cudaErrorInvalidValue;
    return make_plan(limit, processors, item, count, n, svd_items(n), svd_work_items(n, m), svd_row_items(n), plan);
}

template <class T>
__device__ T* dynamic_shared() {
    extern __shared__ __align__(16) unsigned char bytes[];
    return reinterpret_cast<T*>(bytes);
}

template <class T, int SHARED>
__global__ void __launch_bounds__(MOST_THREADS, 2)
    eigh_kernel(const T* matrices, T* values, T* vectors, int* sweeps, std::int64_t count, int n, T* workspace) {
    T* shared = dynamic_shared<T>();
    T* rows = SHARED == BOTH ? shared + eigh_items(n)
                             : workspace + static_cast<std::int64_t>(blockIdx.x) * eigh_row_items(n);
    const EighSpace<T> at = eigh_space(shared, rows, n);
    for (std::int64_t i = blockIdx.x; i < count; i += gridDim.x) {
        const int done = block_eigh(Block{}, matrices + i * n * n, values + i * n, vectors + i * n * n, at, n);
        if (threadIdx.x == 0) sweeps[i] = done;
    }
}

template <class T, int SHARED>
__global__ void __launch_bounds__(MOST_THREADS, 2)
    left_svd_kernel(const T* matrices, T* values, T* vectors, T* right, int* sweeps, std::int64_t count, int n, int m,
                    T* workspace) {
    T* shared = dynamic_shared<T>();
    const std::int64_t per_block = svd_row_items(n) + (SHARED == NEITHER ? svd_work_items(n, m) : 0);
    T* mine = workspace + blockIdx.x * per_block;
    T* work = SHARED == NEITHER ? mine + svd_row_items(n) : shared + svd_items(n);
    T* rows = SHARED == BOTH ? work + svd_work_items(n, m) : mine;
    const SvdSpace<T> at = svd_space(shared, work, rows, n);
    for (std::int64_t i = blockIdx.x; i < count; i += gridDim.x) {
        const int done = block_left_svd(Block{}, matrices + i * n * m, values + i * n, vectors + i * n * n,
                                        right == nullptr ? nullptr : right + i * n * m, at, n, m);
        if (threadIdx.x == 0) sweeps[i] = done;
    }
}

// Queues `kernel` as planned.
template <class Kernel, class... Arguments>
int queue(Kernel kernel, const selshare_plan& plan, int device, void* stream, Arguments... arguments) {
    cudaError_t error = cudaSetDevice(device);
    if (error == cudaSuccess)
        error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                     static_cast<int>(plan.shared_bytes));
    if (error != cudaSuccess) return error;
    kernel<<<plan.blocks, plan.threads, plan.shared_bytes, static_cast<cudaStream_t>(stream)>>>(arguments...);
    return cudaGetLastError();
}

template <class T>
int eigh(int device, const T* matrices, T* values, T* vectors, int* sweeps, std::int64_t count, int n, void* workspace,
         void* stream) {
    int limit = 0, processors = 0;
    selshare_plan plan;
    int code = selshare_limits(device, &limit, &processors);
    if (code == cudaSuccess) code = plan_eigh(limit, processors, sizeof(T), count, n, plan);
    if (code != cudaSuccess || count == 0) return code;
    const auto kernel = plan.shared == BOTH ? eigh_kernel<T, BOTH> : eigh_kernel<T, FIRST>;
    return queue(kernel, plan, device, stream, matrices, values, vectors, sweeps, count, n,
                 static_cast<T*>(workspace));
}

template <class T>
int left_svd(int device, const T* matrices, T* values, T* vectors, T* right, int* sweeps, std::int64_t count, int n,
             int m, void* workspace, void* stream) {
    int limit = 0, processors = 0;
    selshare_plan plan;
    int code = selshare_limits(device, &limit, &processors);
    if (code == cudaSuccess) code = plan_left_svd(limit, processors, sizeof(T), count, n, m, plan);
    if (code != cudaSuccess || count == 0) return code;
    const auto kernel = plan.shared == BOTH    ? left_svd_kernel<T, BOTH>
                        : plan.shared == FIRST ? left_svd_kernel<T, FIRST>
                                               : left_svd_kernel<T, NEITHER>;
    return queue(kernel, plan, device, stream, matrices, values, vectors, right, sweeps, count, n, m,
                 static_cast<T*>(workspace));
}

}  // namespace
}  // namespace selshare::blocks

using namespace selshare::blocks;

int selshare_device_count(int* count) { return cudaGetDeviceCount(count); }

int selshare_versions(int* runtime, int* driver) {
    const cudaError_t error = cudaRuntimeGetVersion(runtime);
    return error == cudaSuccess ? cudaDriverGetVersion(driver) : error;
}

const char* selshare_error(int code) { return cudaGetErrorString(static_cast<cudaError_t>(code)); }

int selshare_limits(int device, int* shared_bytes, int* processors) {
    const cudaError_t error = cudaDeviceGetAttribute(shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    return error == cudaSuccess ? cudaDeviceGetAttribute(processors, cudaDevAttrMultiProcessorCount, device) : error;
}

int selshare_eigh_plan(int shared_bytes, int processors, int item, int64_t count, int n, selshare_plan* plan) {
    return plan_eigh(shared_bytes, processors, item, count, n, *plan);
}

int selshare_left_svd_plan(int shared_bytes, int processors, int item, int64_t count, int n, int m,
                           selshare_plan* plan) {
    return plan_left_svd(shared_bytes, processors, item, count, n, m, *plan);
}

int selshare_eigh_f32(int device, const float* matrices, float* values, float* vectors, int* sweeps, int64_t count,
                      int n, void* workspace, void* stream) {
    return eigh(device, matrices, values, vectors, sweeps, count, n, workspace, stream);
}

int selshare_eigh_f64(int device, const double* matrices, double* values, double* vectors, int* sweeps, int64_t count,
                      int n, void* workspace, void* stream) {
    return eigh(device, matrices, values, vectors, sweeps, count, n, workspace, stream);
}

int selshare_left_svd_f32(int device, const float* matrices, float* values, float* vectors, float* right, int* sweeps,
                          int64_t count, int n, int m, void* workspace, void* stream) {
    return left_svd(device, matrices, values, vectors, right, sweeps, count, n, m, workspace, stream);
}

int selshare_left_svd_f64(int device, const double* matrices, double* values, double* vectors, double* right,
                          int* sweeps, int64_t count, int n, int m, void* workspace, void* stream) {
    return left_svd(device, matrices, values, vectors, right, sweeps, count, n, m, workspace, stream);
}
