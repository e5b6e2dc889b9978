// Looking through long rows for the few entries that pass a test.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "dispatch.hpp"

namespace selshare {

constexpr std::int64_t CHUNK = 64, PART = 16;

// Whether test(j) holds for any j of start … start + WIDTH: without branches, so that it runs in vector registers.
// T is the type that the test compares, whose width the counter takes.
template <class T, std::int64_t WIDTH, class Test>
SELSHARE_INLINE bool any_of(std::int64_t start, const Test& test) {
    using Counter = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
    Counter any = 0;
    for (std::int64_t t = 0; t < WIDTH; ++t) any |= static_cast<Counter>(test(start + t));
    return any != 0;
}

// Calls hit(j) for each j of 0 … count where test(j) holds, tried on 64 and then on 16 at a time.
template <class T, class Test, class Hit>
SELSHARE_INLINE void scan(std::int64_t count, const Test& test, const Hit& hit) {
    std::int64_t start = 0;
    for (; start + CHUNK <= count; start += CHUNK) {
        if (!any_of<T, CHUNK>(start, test)) continue;
        for (std::int64_t part = start; part < start + CHUNK; part += PART) {
            if (!any_of<T, PART>(part, test)) continue;
            for (std::int64_t j = part; j < part + PART; ++j)
                if (test(j)) hit(j);
        }
    }
    for (; start < count; ++start)
        if (test(start)) hit(start);
}

}  // namespace selshare
