/* The CUDA library's C interface. Pointers are to memory of `device`, which must be the calling thread's current
 * device; calls are queued on `stream` and neither wait nor allocate. Every call returns 0 or a cudaError_t, which
 * selshare_cuda_error puts into words. kernels/cuda_library.py is its counterpart. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define SELSHARE_EXPORT __attribute__((visibility("default")))
#define SELSHARE_LARGEST 128 /* rows of a matrix */

#ifdef __cplusplus
extern "C" {
#endif

SELSHARE_EXPORT int selshare_device_count(int* count);
SELSHARE_EXPORT int selshare_versions(int* runtime, int* driver);
SELSHARE_EXPORT const char* selshare_error(int code);

/* What a block of the device may have of shared memory, in bytes, and its number of multiprocessors. */
SELSHARE_EXPORT int selshare_limits(int device, int* shared_bytes, int* processors);

/* How a solver is launched on a device with these limits. */
struct selshare_plan {
    int shared; /* 0: all arrays in shared memory, 1: the vectors in the workspace, 2: the SVD's matrix too */
    int blocks, threads;
    size_t shared_bytes, workspace_bytes;
};

/* Plans for `count` matrices n x n, or n x m for the SVD, of `item` bytes an entry (4 or 8). */
SELSHARE_EXPORT int selshare_eigh_plan(int shared_bytes, int processors, int item, int64_t count, int n,
                                       struct selshare_plan* plan);
SELSHARE_EXPORT int selshare_left_svd_plan(int shared_bytes, int processors, int item, int64_t count, int n, int m,
                                           struct selshare_plan* plan);

/* matrices (count, n, n), of which the lower triangles are read; values (count, n) descending; vectors (count, n, n),
 * in columns; sweeps (count): how many Jacobi sweeps each took, -1 where it did not converge. 1 <= n <= 128. The
 * workspace holds what the plan says. */
SELSHARE_EXPORT int selshare_eigh_f32(int device, const float* matrices, float* values, float* vectors, int* sweeps,
                                      int64_t count, int n, void* workspace, void* stream);
SELSHARE_EXPORT int selshare_eigh_f64(int device, const double* matrices, double* values, double* vectors, int* sweeps,
                                      int64_t count, int n, void* workspace, void* stream);

/* matrices (count, n, m); values (count, n), the singular values, descending; vectors (count, n, n), the left singular
 * vectors in columns; right, unless null, (count, n, m): the right ones in rows, zero where the value is; sweeps and
 * workspace as above. 1 <= n <= 128, 1 <= m. */
SELSHARE_EXPORT int selshare_left_svd_f32(int device, const float* matrices, float* values, float* vectors,
                                          float* right, int* sweeps, int64_t count, int n, int m, void* workspace,
                                          void* stream);
SELSHARE_EXPORT int selshare_left_svd_f64(int device, const double* matrices, double* values, double* vectors,
                                          double* right, int* sweeps, int64_t count, int n, int m, void* workspace,
                                          void* stream);

#ifdef __cplusplus
}
#endif
