#include "cpu/dropout.hpp"

#include <algorithm>

#include "cpu/dispatch.hpp"

namespace selshare {
namespace {

constexpr int BLOCKS = 16, HALVES = 8, CHUNK = BLOCKS * HALVES, ROUNDS = 10;
constexpr std::int64_t LEAST_CHUNKS = 128;  // of one thread: 16,384 units take about 10 µs

struct alignas(64) Words {
    std::uint32_t of[HALVES][BLOCKS];
};

// Philox4x32-10 of counters first ... first + 15. The rounds are unrolled, the loop over blocks becomes vectors.
SELSHARE_INLINE void draw(std::uint64_t first, std::uint64_t key, Words& words) {
    for (int block = 0; block < BLOCKS; ++block) {
        // `first` is a multiple of 16, so that only its low word differs from block to block.
        std::uint32_t x0 = static_cast<std::uint32_t>(first) + static_cast<std::uint32_t>(block);
        std::uint32_t x1 = static_cast<std::uint32_t>(first >> 32), x2 = 0, x3 = 0;
        std::uint32_t key0 = static_cast<std::uint32_t>(key), key1 = static_cast<std::uint32_t>(key >> 32);
#pragma GCC unroll 10
        for (int round = 0; round < ROUNDS; ++round) {
            const std::uint64_t left = std::uint64_t{0xD2511F53u} * x0, right = std::uint64_t{0xCD9E8D57u} * x2;
            x0 = static_cast<std::uint32_t>(right >> 32) ^ x1 ^ key0;
            x1 = static_cast<std::uint32_t>(right);
            x2 = static_cast<std::uint32_t>(left >> 32) ^ x3 ^ key1;
            x3 = static_cast<std::uint32_t>(left);
            key0 += 0x9E3779B9u;
            key1 += 0xBB67AE85u;
        }
        words.of[0][block] = x0 & 0xFFFFu;
        words.of[1][block] = x0 >> 16;
        words.of[2][block] = x1 & 0xFFFFu;
        words.of[3][block] = x1 >> 16;
        words.of[4][block] = x2 & 0xFFFFu;
        words.of[5][block] = x2 >> 16;
        words.of[6][block] = x3 & 0xFFFFu;
        words.of[7][block] = x3 >> 16;
    }
}

// Chunks start ... stop - 1 of 128 units, the last of which may be cut short by `count`.
template <class T>
SELSHARE_INLINE void chunks(const T* source, T* result, std::int64_t count, std::uint64_t key, std::uint32_t threshold,
                            std::int64_t start, std::int64_t stop) {
    const T scale = static_cast<T>(65536.0 / (65536.0 - threshold));
    Words words;
    const std::uint32_t* word = &words.of[0][0];
    for (std::int64_t chunk = start; chunk < stop; ++chunk) {
        draw(static_cast<std::uint64_t>(chunk) * BLOCKS, key, words);
        const T* from = source + chunk * CHUNK;
        T* to = result + chunk * CHUNK;
        const std::int64_t here = count - chunk * CHUNK;
        if (here >= CHUNK) {
            for (int i = 0; i < CHUNK; ++i) to[i] = from[i] * (word[i] < threshold ? T{0} : scale);
        } else {
            for (int i = 0; i < here; ++i) to[i] = from[i] * (word[i] < threshold ? T{0} : scale);
        }
    }
}

SELSHARE_CLONES void chunks_f32(const float* source, float* result, std::int64_t count, std::uint64_t key,
                                std::uint32_t threshold, std::int64_t start, std::int64_t stop) {
    chunks(source, result, count, key, threshold, start, stop);
}
SELSHARE_CLONES void chunks_f64(const double* source, double* result, std::int64_t count, std::uint64_t key,
                                std::uint32_t threshold, std::int64_t start, std::int64_t stop) {
    chunks(source, result, count, key, threshold, start, stop);
}

template <class Run>
void split(std::int64_t count, int threads, const Run& run) {
    const std::int64_t all = (count + CHUNK - 1) / CHUNK;
    const std::int64_t parts = std::max<std::int64_t>(1, std::min<std::int64_t>(threads, all / LEAST_CHUNKS));
#pragma omp parallel for num_threads(static_cast<int>(parts)) schedule(static)
    for (std::int64_t part = 0; part < parts; ++part) run(all * part / parts, all * (part + 1) / parts);
}

}  // namespace

void dropout(const float* source, float* result, std::int64_t count, std::uint64_t key, std::uint32_t threshold,
             int threads) {
    split(count, threads, [&](std::int64_t start, std::int64_t stop) {
        chunks_f32(source, result, count, key, threshold, start, stop);
    });
}
void dropout(const double* source, double* result, std::int64_t count, std::uint64_t key, std::uint32_t threshold,
             int threads) {
    split(count, threads, [&](std::int64_t start, std::int64_t stop) {
        chunks_f64(source, result, count, key, threshold, start, stop);
    });
}

}  // namespace selshare
