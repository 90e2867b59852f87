/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prints MIB of reproducible text, the input of sort and snappy: words whose frequency falls like
 * 1/rank, in lines of a few words that begin with a number, so that lines differ early.
 *
 * usage: text MIB WORDS_PER_LINE
 */
#include "bench.h"

#include <math.h>

enum { VOCABULARY = 32768, LONGEST = 12 };

static char words[VOCABULARY][LONGEST + 1];

static void make_words(void)
{
    uint64_t state = 3;

    for (int i = 0; i < VOCABULARY; i++) {
        unsigned length = 2 + (unsigned)(bench_random(&state) % (LONGEST - 1));
        for (unsigned k = 0; k < length; k++)
            words[i][k] = (char)('a' + bench_random(&state) % 26);
    }
}

/* Inverse of the distribution function of 1/rank, near enough: vocabulary to the power of u. */
static const char *next_word(uint64_t *state)
{
    double u = (double)(bench_random(state) >> 11) / (double)(1ull << 53);
    return words[(unsigned)(exp(u * log(VOCABULARY)) - 1) % VOCABULARY];
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: text MIB WORDS_PER_LINE\n");
        return 2;
    }
    long long left_bytes = (long long)(strtoull(argv[1], NULL, 10) << 20);
    int line_words = atoi(argv[2]);
    uint64_t state = 4;

    make_words();
    while (left_bytes > 0) {
        left_bytes -= printf("%09u", (unsigned)(bench_random(&state) % 1000000000));
        for (int i = 0; i < line_words; i++)
            left_bytes -= printf(" %s", next_word(&state));
        left_bytes -= printf("\n");
    }
    return ferror(stdout) || fflush(stdout) != 0;
}
