/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AVX2 gathers and wide stores over far pages: one instruction touches up to eight pages, and the
 * vector registers must survive every fault. Prints the same line where the CPU has no AVX2.
 */
#include "guest.h"

#include <immintrin.h>
#include <stdint.h>
#include <sys/mman.h>

#define TARGET __attribute__((target("avx2")))

TARGET static void fill(uint32_t *area, size_t words)
{
    __m256i value = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i eight = _mm256_set1_epi32(8);
    /* Off by four bytes: every 128th store crosses a page border. */
    for (size_t i = 1; i + 8 <= words; i += 8) {
        _mm256_storeu_si256((__m256i *)(void *)(area + i), value);
        value = _mm256_add_epi32(value, eight);
    }
}

TARGET static uint64_t gather(const uint32_t *area, size_t words, unsigned rounds)
{
    uint64_t random = 99;
    uint64_t wrong = 0;
    for (unsigned round = 0; round < rounds; round++) {
        int32_t index[8];
        for (int i = 0; i < 8; i++) {
            random = random * 6364136223846793005u + 1442695040888963407u;
            index[i] = (int32_t)(1 + (random >> 33) % (words - 9));
        }
        __m256i indices = _mm256_loadu_si256((const __m256i *)(const void *)index);
        __m256i found = _mm256_i32gather_epi32((const int *)(const void *)area, indices, 4);
        __m256i wanted = _mm256_sub_epi32(indices, _mm256_set1_epi32(1));
        __m256i equal = _mm256_cmpeq_epi32(found, wanted);
        wrong += (uint64_t)(_mm256_movemask_epi8(equal) != -1);
        __m256d wide =
            _mm256_i32gather_pd((const double *)(const void *)area,
                                _mm256_castsi256_si128(_mm256_srli_epi32(indices, 1)), 8);
        __m256i low = _mm256_castpd_si256(wide);
        uint32_t parts[8];
        _mm256_storeu_si256((__m256i *)(void *)parts, low);
        for (int i = 0; i < 4; i++)
            wrong += parts[2 * i] + 1 != (uint32_t)(index[i] & ~1) && (index[i] & ~1) > 0;
    }
    return wrong;
}

int main(int argc, char **argv)
{
    size_t bytes = (argc > 1 ? strtoul(argv[1], NULL, 10) : 32) << 20;
    unsigned rounds = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 5000;
    uint32_t *area = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(area != MAP_FAILED);
    if (__builtin_cpu_supports("avx2")) {
        fill(area, bytes / 4);
        EXPECT(gather(area, bytes / 4, rounds) == 0);
    }
    return guest_passed("vector_gather");
}
