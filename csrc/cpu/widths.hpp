// Run-time choice between versions of a kernel that differ in their vector width. target_clones (dispatch.hpp)
// compiles one source three times; here the register tile itself depends on the width, so a kernel is a template
//
//     template <int BYTES> struct Kernel { template <class... A> static SELSHARE_INLINE void run(A... a); };
//
// and widest<Kernel, A...>() is a pointer to the version for the processor at hand. Compiled as plain functions and
// called once per branch, the versions may be used inside OpenMP regions.
#pragma once

#include <cstdlib>
#include <cstring>

#include "cpu/dispatch.hpp"

namespace selshare {

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define SELSHARE_X86_WIDTHS 1
template <template <int> class Kernel, class... A>
__attribute__((target("arch=x86-64-v4"))) void run_64(A... a) {
    Kernel<64>::run(a...);
}
template <template <int> class Kernel, class... A>
__attribute__((target("arch=x86-64-v3"))) void run_32(A... a) {
    Kernel<32>::run(a...);
}
#endif

template <template <int> class Kernel, class... A>
void run_16(A... a) {
    Kernel<16>::run(a...);
}

// Bytes of a vector: 64, 32 or 16. SELSHARE_VECTOR_BYTES, read once, asks for fewer than the processor has (tests).
inline int vector_bytes() {
    static const int bytes = [] {
        int most = 16;
#ifdef SELSHARE_X86_WIDTHS
        __builtin_cpu_init();
        most = __builtin_cpu_supports("x86-64-v4") ? 64 : __builtin_cpu_supports("x86-64-v3") ? 32 : 16;
#endif
        const char* asked = std::getenv("SELSHARE_VECTOR_BYTES");
        const int wanted = asked ? std::atoi(asked) : most;
        return wanted == 16 || wanted == 32 ? (wanted < most ? wanted : most) : most;
    }();
    return bytes;
}

template <template <int> class Kernel, class... A>
auto widest() -> void (*)(A...) {
#ifdef SELSHARE_X86_WIDTHS
    if (vector_bytes() == 64) return &run_64<Kernel, A...>;
    if (vector_bytes() == 32) return &run_32<Kernel, A...>;
#endif
    return &run_16<Kernel, A...>;
}

}  // namespace selshare
