/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: the redis guide's parser of what clients sent. Input: a query buffer. What is parsed
 * lies within it, and a request is whole only with its last byte.
 */
#include "redis/requests.c" // NOLINT(bugprone-suspicious-include): what it declares is its own

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void require(bool promise)
{
    if (!promise)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct request request;
    size_t at = 0, length;
    while ((length = request_parse(data + at, bytes - at, &request)) > 0) {
        require(length <= bytes - at && request.keys <= REQUEST_KEYS);
        for (unsigned i = 0; i < request.keys; i++) {
            require(request.key[i].text >= data + at);
            require(request.key[i].text + request.key[i].bytes + 2 <= data + at + length);
        }
        require(request_parse(data + at, length - 1, &request) == 0);
        at += length;
    }
    return 0;
}
