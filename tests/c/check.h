/* Shared parts of the tests in C: checks that print where they failed, and stores.
 *
 * A test is a program that gets an empty directory as its first argument, and ends with 0 if all is well.
 * `error` holds every call's error; OK and FAILS check it and free it. */
#ifndef CHECK_H
#define CHECK_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graviton.h"

static graviton_error *error;

static inline void failed(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: %s\n", file, line, what);
    if (error != NULL) {
        fprintf(stderr, "  error[%s] %s; advice: %s\n", graviton_error_name(error), graviton_error_message(error),
                graviton_error_advice(error));
    }
    abort();
}

#define CHECK(condition) ((condition) ? (void)0 : failed(__FILE__, __LINE__, #condition))

/* The call succeeds, and leaves no error. */
#define OK(call)                                                                                                       \
    do {                                                                                                               \
        graviton_status status_ = (call);                                                                              \
        if (status_ != GRAVITON_OK || error != NULL) {                                                                 \
            failed(__FILE__, __LINE__, #call);                                                                         \
        }                                                                                                              \
    } while (0)

/* The call fails with this code, in its status and in its error, which has a message. */
#define FAILS(call, expected)                                                                                          \
    do {                                                                                                               \
        graviton_status status_ = (call);                                                                              \
        if (status_ != (expected) || error == NULL || graviton_error_code(error) != (expected)                         \
            || graviton_error_message(error)[0] == 0                                                                   \
            || strcmp(graviton_error_name(error), graviton_status_name(expected)) != 0) {                              \
            fprintf(stderr, "status %d, expected %d\n", (int)status_, (int)(expected));                                \
            failed(__FILE__, __LINE__, #call);                                                                         \
        }                                                                                                              \
        graviton_error_free(error);                                                                                    \
        error = NULL;                                                                                                  \
    } while (0)

#define INVALID(call) FAILS(call, GRAVITON_ERROR_INVALID_ARGUMENT)

static inline graviton_store *open_store(const char *path)
{
    graviton_store *store = NULL;
    OK(graviton_store_open(path, strlen(path), &store, &error));
    CHECK(store != NULL);
    return store;
}

static inline void set(graviton_config *config, const char *name, const char *value)
{
    OK(graviton_config_set(config, name, strlen(name), value, strlen(value), &error));
}

/* Bytes that look random and depend only on the seed: xorshift64*. */
static inline void noise(unsigned char *bytes, size_t length, unsigned long long seed)
{
    unsigned long long state = seed * 2654435769u + 88172645463325252ull;
    for (size_t index = 0; index < length; index++) {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes[index] = (unsigned char)((state * 2685821657736338717ull) >> 56);
    }
}

/* `malloc`ed bytes of exactly this length, so that a checker detects an access one byte past the end. */
static inline unsigned char *some(size_t length, unsigned long long seed)
{
    unsigned char *bytes = malloc(length ? length : 1);
    CHECK(bytes != NULL);
    noise(bytes, length, seed);
    return bytes;
}

static inline graviton_blob_id put(graviton_store *store, const void *bytes, size_t length)
{
    graviton_put_receipt receipt = GRAVITON_PUT_RECEIPT_INIT;
    OK(graviton_store_put(store, bytes, length, NULL, &receipt, &error));
    return receipt.id;
}

/* The blob has exactly these bytes. */
static inline void expect_blob(graviton_store *store, const graviton_blob_id *id, const unsigned char *bytes, size_t length)
{
    unsigned char *got = malloc(length ? length : 1);
    size_t count = 12345;
    CHECK(id->size == length);
    OK(graviton_store_get(store, id, got, length, NULL, &count, &error));
    CHECK(count == length && (length == 0 || memcmp(got, bytes, length) == 0));
    free(got);
}

/* A path inside the test's directory, in a buffer that is reused by the next call but one. */
static inline const char *inside(const char *directory, const char *name)
{
    static char paths[2][4096];
    static int turn;
    char *path = paths[turn++ & 1];
    snprintf(path, sizeof paths[0], "%s/%s", directory, name);
    return path;
}

#endif
