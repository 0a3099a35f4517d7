/* Many threads on one handle, closing during other calls, and freeing in any order. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "check.h"

#define LARGE ((size_t)6 * 1000 * 1000)
#define READERS 16

static unsigned char *large;
static graviton_store *store;
static graviton_reader *reader;
static graviton_writer *writer;
static atomic_int begun, refused, ended;

/* Each thread has its own errors. */
#define MINE(call, expected)                                                                                           \
    do {                                                                                                               \
        graviton_error *mine = NULL;                                                                                   \
        graviton_status status_ = (call);                                                                              \
        CHECK(status_ == (expected) && (mine != NULL) == (status_ != GRAVITON_OK));                                    \
        graviton_error_free(mine);                                                                                     \
    } while (0)

static unsigned rounds(void)
{
    const char *text = getenv("GRAVITON_C_ROUNDS");
    return text ? (unsigned)atoi(text) : 100;
}

static void *read_anywhere(void *userdata)
{
    unsigned long long seed = (unsigned long long)(size_t)userdata;
    unsigned char *room = malloc(300000);
    for (unsigned round = 0; round < rounds(); round++) {
        unsigned char random[8];
        unsigned long long number = 0;
        size_t count = 0;
        noise(random, sizeof random, seed * 1000003 + round);
        memcpy(&number, random, sizeof number);
        size_t offset = number % LARGE, length = round % 8 == 0 ? number % 300000 : number % 5000;
        size_t expected = length < LARGE - offset ? length : LARGE - offset;
        MINE(graviton_reader_read_at(reader, offset, room, length, &count, &mine), GRAVITON_OK);
        CHECK(count == expected && memcmp(room, large + offset, count) == 0);
    }
    free(room);
    return NULL;
}

/* Some reads succeed, the others are refused; no read returns a wrong byte. */
static void *read_in_order(void *userdata)
{
    (void)userdata;
    unsigned char room[1000];
    for (unsigned round = 0; round < rounds(); round++) {
        graviton_error *mine = NULL;
        size_t count = 0;
        graviton_status status = graviton_reader_read(reader, room, sizeof room, &count, &mine);
        CHECK(status == GRAVITON_OK || status == GRAVITON_ERROR_INVALID_ARGUMENT);
        if (status == GRAVITON_OK) {
            CHECK(count > 0);
        } else {
            refused++;
        }
        graviton_error_free(mine);
    }
    return NULL;
}

static void join(pthread_t *threads, int count)
{
    for (int index = 0; index < count; index++) {
        CHECK(pthread_join(threads[index], NULL) == 0);
    }
}

static void one_reader(void)
{
    pthread_t threads[READERS + 4];
    for (int index = 0; index < READERS; index++) {
        CHECK(pthread_create(&threads[index], NULL, read_anywhere, (void *)(size_t)(index + 1)) == 0);
    }
    for (int index = READERS; index < READERS + 4; index++) {
        CHECK(pthread_create(&threads[index], NULL, read_in_order, NULL) == 0);
    }
    join(threads, READERS + 4);
}

static void *write_all_the_same(void *userdata)
{
    (void)userdata;
    for (unsigned round = 0; round < rounds(); round++) {
        graviton_error *mine = NULL;
        graviton_status status = graviton_writer_write(writer, large, 10000, &mine);
        CHECK(status == GRAVITON_OK || status == GRAVITON_ERROR_INVALID_ARGUMENT);
        if (status == GRAVITON_OK) {
            begun++;
        }
        graviton_error_free(mine);
    }
    return NULL;
}

/* Two threads in one writer: each write is whole or refused, and the size tells which. */
static void one_writer(void)
{
    pthread_t threads[4];
    uint64_t size = 0;
    graviton_put_receipt receipt = GRAVITON_PUT_RECEIPT_INIT;
    OK(graviton_writer_open(store, NULL, &writer, &error));
    begun = 0;
    for (int index = 0; index < 4; index++) {
        CHECK(pthread_create(&threads[index], NULL, write_all_the_same, NULL) == 0);
    }
    join(threads, 4);
    OK(graviton_writer_size(writer, &size, &error));
    CHECK(size == (uint64_t)begun * 10000);
    OK(graviton_writer_finish(writer, &receipt, &error));
    CHECK(receipt.id.size == size);
    graviton_writer_free(writer);
}

static void *put_and_get(void *userdata)
{
    for (unsigned round = 0; round < rounds() / 10 + 1; round++) {
        graviton_put_receipt receipt = GRAVITON_PUT_RECEIPT_INIT;
        size_t length = (round * 7919 + (size_t)userdata * 104729) % 400000, count = 0;
        unsigned char *room = malloc(length + 1);
        MINE(graviton_store_put(store, large + length, length, NULL, &receipt, &mine), GRAVITON_OK);
        MINE(graviton_store_get(store, &receipt.id, room, length, NULL, &count, &mine), GRAVITON_OK);
        CHECK(count == length && memcmp(room, large + length, length) == 0);
        free(room);
    }
    return NULL;
}

/* Works until the store is closed, which must be the only failure. */
static void *until_closed(void *userdata)
{
    int kind = (int)(size_t)userdata;
    graviton_blob_id id;
    unsigned char room[20000] = { 0 };
    CHECK(graviton_reader_id(reader, &id, NULL) == GRAVITON_OK || kind < 0);
    for (unsigned long long round = 0;; round++) {
        graviton_error *mine = NULL;
        graviton_status status;
        size_t count = 0;
        unsigned char random[8];
        unsigned long long number = 0;
        noise(random, sizeof random, round * 31 + (unsigned)kind);
        memcpy(&number, random, sizeof number);
        switch (kind % 4) {
        case 0:
            status = graviton_reader_read_at(reader, number % LARGE, room, sizeof room, &count, &mine);
            break;
        case 1:
            status = graviton_store_read_range(store, &id, number % LARGE, room, sizeof room, &count, &mine);
            break;
        case 2: {
            graviton_blob_stat stat = GRAVITON_BLOB_STAT_INIT;
            status = graviton_store_stat(store, &id, &stat, &mine);
            break;
        }
        default:
            memcpy(room, &number, sizeof number);
            status = graviton_store_put(store, room, sizeof room, NULL, NULL, &mine);
        }
        if (round == 1) {
            begun++;
        }
        if (status != GRAVITON_OK) {
            if (status != GRAVITON_ERROR_CLOSED) {
                fprintf(stderr, "kind %d: %s: %s\n", kind % 4, graviton_error_name(mine), graviton_error_message(mine));
            }
            CHECK(status == GRAVITON_ERROR_CLOSED);
            graviton_error_free(mine);
            ended++;
            return NULL;
        }
    }
}

static void close_while_in_use(const char *directory, const graviton_blob_id *id)
{
    for (unsigned round = 0; round < rounds() / 20 + 1; round++) {
        pthread_t threads[8];
        uint64_t size = 0;
        store = open_store(directory);
        OK(graviton_reader_open(store, id, &reader, &error));
        begun = ended = 0;
        for (int index = 0; index < 8; index++) {
            CHECK(pthread_create(&threads[index], NULL, until_closed, (void *)(size_t)index) == 0);
        }
        while (begun < 8) {
            sched_yield();
        }
        OK(graviton_store_close(store, &error));
        join(threads, 8);
        CHECK(ended == 8);
        FAILS(graviton_reader_size(reader, &size, &error), GRAVITON_ERROR_CLOSED);
        /* Out of order, on purpose. */
        graviton_store_free(store);
        graviton_reader_free(reader);
    }
}

/* A store is freed while its readers, writers and iterators are still used. */
static void free_in_any_order(const char *directory, const graviton_blob_id *id)
{
    for (int order = 0; order < 4; order++) {
        graviton_list *list = NULL;
        graviton_manifest *manifest = NULL;
        graviton_blob_stat stat = GRAVITON_BLOB_STAT_INIT;
        graviton_manifest_entry entry;
        graviton_store *other = NULL;
        unsigned char room[100];
        size_t count = 0;
        int32_t found = 0;
        graviton_put_receipt receipt = GRAVITON_PUT_RECEIPT_INIT;
        store = open_store(directory);
        OK(graviton_reader_open(store, id, &reader, &error));
        OK(graviton_writer_open(store, NULL, &writer, &error));
        OK(graviton_list_open(store, NULL, &list, &error));
        OK(graviton_manifest_open(store, id, 0, &manifest, &error));
        OK(graviton_store_with_cancel(store, NULL, NULL, &other, &error));
        graviton_store_free(store);
        if (order & 1) {
            graviton_store_free(other);
        }
        OK(graviton_reader_read(reader, room, sizeof room, &count, &error));
        CHECK(count > 0 && memcmp(room, large, count) == 0);
        OK(graviton_reader_read_at(reader, 500, room, sizeof room, &count, &error));
        CHECK(count == sizeof room && memcmp(room, large + 500, count) == 0);
        OK(graviton_list_next(list, &stat, &found, &error));
        CHECK(found == 1);
        OK(graviton_manifest_next(manifest, &entry, &found, &error));
        CHECK(found == 1 && entry.offset == 0);
        if (order & 2) {
            graviton_reader_free(reader);
        }
        OK(graviton_writer_write(writer, room, sizeof room, &error));
        OK(graviton_writer_finish(writer, &receipt, &error));
        CHECK(receipt.id.size == sizeof room);
        if (!(order & 2)) {
            graviton_reader_free(reader);
        }
        graviton_list_free(list);
        graviton_writer_free(writer);
        if (!(order & 1)) {
            graviton_store_free(other);
        }
        graviton_manifest_free(manifest);
    }
}

int main(int count, char **arguments)
{
    CHECK(count == 2);
    const char *directory = arguments[1];
    large = some(LARGE, 3);
    store = open_store(directory);
    graviton_blob_id id = put(store, large, LARGE);
    OK(graviton_reader_open(store, &id, &reader, &error));
    one_reader();
    graviton_reader_free(reader);
    one_writer();
    pthread_t threads[8];
    for (int index = 0; index < 8; index++) {
        CHECK(pthread_create(&threads[index], NULL, put_and_get, (void *)(size_t)index) == 0);
    }
    join(threads, 8);
    graviton_store_free(store);
    free_in_any_order(directory, &id);
    close_while_in_use(directory, &id);
    free(large);
    return 0;
}
