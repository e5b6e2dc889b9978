// Scratch memory for parallel loops: one 64-byte-aligned piece per thread, allocated before the loop starts.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace selshare {

inline int thread_number() {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

template <class T>
class Workspace {
  public:
    Workspace(std::size_t items, int threads) : bytes_((items * sizeof(T) + PAGE - 1) / PAGE * PAGE) {
        data_ = static_cast<char*>(std::aligned_alloc(PAGE, bytes_ * threads + PAGE));
        if (data_ == nullptr) throw std::bad_alloc();
    }
    ~Workspace() { std::free(data_); }
    Workspace(const Workspace&) = delete;
    Workspace& operator=(const Workspace&) = delete;

    // The piece of the calling thread.
    T* mine() { return reinterpret_cast<T*>(data_ + bytes_ * thread_number()); }

  private:
    static constexpr std::size_t PAGE = 4096;  // threads do not share pages, vectors do not straddle cache lines
    std::size_t bytes_;
    char* data_;
};

}  // namespace selshare
