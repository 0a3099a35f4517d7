/* The C side of tests/bench/c. tests/tools/src/bin/bench_boundary.rs is the same program in Rust, step by
 * step, and describes its arguments. */
#define _POSIX_C_SOURCE 200809L
#include <fcntl.h>
#include <graviton.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BUFFER 65536
#define PIECE 4096

static graviton_error *error;

static void check(int fine, const char *what)
{
    if (!fine) {
        fprintf(stderr, "boundary: %s: %s\n", what, graviton_error_message(error));
        exit(1);
    }
}

#define OK(call) check((call) == GRAVITON_OK, #call)

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void put(const graviton_store *store, const char *path)
{
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    uint8_t *buffer = calloc(1, BUFFER);
    check(file >= 0 && buffer != NULL, path);
    const double start = now();
    graviton_writer *writer = NULL;
    OK(graviton_writer_open(store, NULL, &writer, &error));
    ssize_t count;
    while ((count = read(file, buffer, BUFFER)) > 0) {
        OK(graviton_writer_write(writer, buffer, (size_t)count, &error));
    }
    check(count == 0, path);
    graviton_put_receipt receipt = GRAVITON_PUT_RECEIPT_INIT;
    OK(graviton_writer_finish(writer, &receipt, &error));
    const double seconds = now() - start;
    char id[GRAVITON_BLOB_ID_TEXT_MAX];
    OK(graviton_blob_id_format(&receipt.id, id, sizeof(id), NULL, &error));
    printf("%.6f %s\n", seconds, id);
    graviton_writer_free(writer);
    free(buffer);
    close(file);
}

static void get(const graviton_store *store, const graviton_blob_id *id)
{
    uint8_t *buffer = calloc(1, BUFFER);
    check(buffer != NULL, "memory");
    const double start = now();
    graviton_reader *reader = NULL;
    OK(graviton_reader_open(store, id, &reader, &error));
    uint64_t whole = 0;
    size_t count;
    do {
        OK(graviton_reader_read(reader, buffer, BUFFER, &count, &error));
        whole += count;
        (void)*(volatile uint8_t *)buffer;
    } while (count > 0);
    printf("%.6f\n", now() - start);
    check(whole == id->size, "not all of it came");
    graviton_reader_free(reader);
    free(buffer);
}

static void at_random(const graviton_store *store, const graviton_blob_id *id, uint64_t reads)
{
    uint8_t *buffer = calloc(1, PIECE);
    check(buffer != NULL, "memory");
    graviton_reader *reader = NULL;
    OK(graviton_reader_open(store, id, &reader, &error));
    const uint64_t places = id->size - PIECE;
    uint64_t state = 0x9e3779b97f4a7c15u;
    const double start = now();
    for (uint64_t number = 0; number < reads; number++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        size_t count;
        OK(graviton_reader_read_at(reader, state % places, buffer, PIECE, &count, &error));
        check(count == PIECE, "not all of it came");
        (void)*(volatile uint8_t *)buffer;
    }
    printf("%.6f\n", now() - start);
    graviton_reader_free(reader);
    free(buffer);
}

int main(int argc, char **argv)
{
    graviton_store *store = NULL;
    graviton_blob_id id;
    check(argc >= 4, "usage: boundary put ROOT FILE | get ROOT ID | random ROOT ID COUNT");
    OK(graviton_store_open(argv[2], strlen(argv[2]), &store, &error));
    if (strcmp(argv[1], "put") == 0) {
        put(store, argv[3]);
    } else {
        OK(graviton_blob_id_parse(argv[3], strlen(argv[3]), &id, &error));
        if (argc == 5) {
            at_random(store, &id, strtoull(argv[4], NULL, 10));
        } else {
            get(store, &id);
        }
    }
    graviton_store_free(store);
    return 0;
}
