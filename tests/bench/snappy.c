/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compresses or decompresses a file in memory with libsnappy, one block of 1 MiB after the other.
 * `decompress` compresses during its setup, and lets the uncompressed input go.
 *
 * usage: snappy compress|decompress FILE
 */
#include "bench.h"

#include <snappy-c.h>

enum { BLOCK_BYTES = 1 << 20 };

struct blocks {
    char *data;
    size_t *lengths; /* bytes of each block; blocks lie at multiples of stride_bytes */
    size_t count;
    size_t stride_bytes;
};

static size_t block_count(size_t length_bytes)
{
    return (length_bytes + BLOCK_BYTES - 1) / BLOCK_BYTES;
}

static struct blocks blocks_of(size_t count, size_t stride_bytes)
{
    struct blocks blocks = {.count = count, .stride_bytes = stride_bytes};

    blocks.data = bench_allocate(count * stride_bytes + 1);
    blocks.lengths = bench_allocate(count * sizeof *blocks.lengths + 1);
    return blocks;
}

static void compress_all(const char *input, size_t length_bytes, struct blocks *to)
{
    for (size_t i = 0; i < to->count; i++) {
        size_t left = length_bytes - i * BLOCK_BYTES;
        size_t room = to->stride_bytes;
        if (snappy_compress(input + i * BLOCK_BYTES, left < BLOCK_BYTES ? left : BLOCK_BYTES,
                            to->data + i * to->stride_bytes, &room) != SNAPPY_OK)
            exit(1);
        to->lengths[i] = room;
    }
}

static void decompress_all(const struct blocks *from, struct blocks *to)
{
    for (size_t i = 0; i < from->count; i++) {
        size_t room = to->stride_bytes;
        if (snappy_uncompress(from->data + i * from->stride_bytes, from->lengths[i],
                              to->data + i * to->stride_bytes, &room) != SNAPPY_OK)
            exit(1);
        to->lengths[i] = room;
    }
}

static uint64_t hash_of(const struct blocks *blocks)
{
    uint64_t hash = 0;
    for (size_t i = 0; i < blocks->count; i++)
        hash = bench_hash(hash, blocks->data + i * blocks->stride_bytes, blocks->lengths[i]);
    return hash;
}

int main(int argc, char **argv)
{
    int decompress = argc == 3 && strcmp(argv[1], "decompress") == 0;
    if (argc != 3 || (!decompress && strcmp(argv[1], "compress") != 0)) {
        fprintf(stderr, "usage: snappy compress|decompress FILE\n");
        return 2;
    }
    size_t length_bytes;
    bench_phase(NULL);
    char *input = bench_load(argv[2], &length_bytes);
    size_t stride_bytes = snappy_max_compressed_length(BLOCK_BYTES) | (BENCH_PAGE - 1);
    struct blocks packed = blocks_of(block_count(length_bytes), stride_bytes + 1);
    if (!decompress) {
        bench_phase("setup");
        compress_all(input, length_bytes, &packed);
        bench_phase("run");
        bench_checksum(hash_of(&packed));
        return 0;
    }
    compress_all(input, length_bytes, &packed);
    uint64_t expected = bench_hash(0, input, length_bytes);
    munmap(input, length_bytes);
    struct blocks plain = blocks_of(packed.count, BLOCK_BYTES);
    bench_phase("setup");
    decompress_all(&packed, &plain);
    bench_phase("run");
    uint64_t hash = hash_of(&plain);
    bench_checksum(hash);
    return length_bytes % 8 == 0 && hash != expected;
}
