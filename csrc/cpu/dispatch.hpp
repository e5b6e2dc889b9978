// Run-time CPU dispatch: a function marked SELSHARE_CLONES is compiled for baseline x86-64, AVX2 and
// AVX-512, and the dynamic linker picks the best the processor has. Helpers it calls must be
// SELSHARE_INLINE, or they would stay at the baseline.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__)
#define SELSHARE_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define SELSHARE_CLONES
#endif

#define SELSHARE_INLINE inline __attribute__((always_inline))
// After the parameters of a lambda in such a helper: [&](int i) SELSHARE_INLINED { … }
#define SELSHARE_INLINED __attribute__((always_inline))
