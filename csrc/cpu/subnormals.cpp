#include "subnormals.hpp"

#if defined(__x86_64__)
#include <xmmintrin.h>
#elif defined(__aarch64__)
#include <cstdint>
#endif

namespace selshare {

namespace {

#if defined(__x86_64__)
constexpr bool HAS_MODE = true;

// Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, section 10.2.3: MXCSR.
void set_mine(bool zero) {
    constexpr unsigned results = 1U << 15U, operands = 1U << 6U;
    const unsigned others = _mm_getcsr() & ~(results | operands);
    _mm_setcsr(zero ? others | results | operands : others);
}
#elif defined(__aarch64__)
constexpr bool HAS_MODE = true;

// Arm Architecture Reference Manual, FPCR: FZ is for operands and results of both precisions.
void set_mine(bool zero) {
    constexpr std::uint64_t both = std::uint64_t{1} << 24U;
    std::uint64_t mode = 0;
    asm volatile("mrs %0, fpcr" : "=r"(mode));
    mode = zero ? mode | both : mode & ~both;
    asm volatile("msr fpcr, %0" : : "r"(mode));
}
#else
constexpr bool HAS_MODE = false;

void set_mine(bool) {}
#endif

}  // namespace

bool set_subnormals_as_zero(bool zero, int threads) {
    // libgomp keeps its threads from loop to loop; one that is started later has the mode of the thread that starts it.
#pragma omp parallel num_threads(threads)
    set_mine(zero);
    return HAS_MODE;
}

}  // namespace selshare
