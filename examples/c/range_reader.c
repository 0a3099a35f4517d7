/* Writes a blob to a file with several threads, each of which takes the next piece:
 * range_reader DIRECTORY ID TARGET THREADS
 *
 * All threads share one reader: any number of threads may call graviton_reader_read_at at once. */
#define _POSIX_C_SOURCE 200809L
#include <fcntl.h>
#include <graviton.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PIECE ((uint64_t)1 << 20)
#define MOST_THREADS 64

struct work {
    const graviton_reader *reader;
    uint64_t size;
    int target;
    pthread_mutex_t lock;
    uint64_t next;              /* under the lock */
    int failed;                 /* under the lock */
};

/* The next free piece; the size of the blob if there is none or a thread has failed. */
static uint64_t take(struct work *work)
{
    pthread_mutex_lock(&work->lock);
    const uint64_t offset = work->failed || work->next > work->size ? work->size : work->next;
    work->next = offset + PIECE;
    pthread_mutex_unlock(&work->lock);
    return offset;
}

static void *run(void *userdata)
{
    struct work *work = userdata;
    uint8_t *buffer = malloc(PIECE);
    graviton_error *error = NULL;
    int failed = buffer == NULL;
    uint64_t offset;
    while (!failed && (offset = take(work)) < work->size) {
        size_t count = 0;
        if (graviton_reader_read_at(work->reader, offset, buffer, PIECE, &count, &error) != GRAVITON_OK) {
            fprintf(stderr, "range_reader: %s\n", graviton_error_message(error));
            failed = 1;
        } else if (pwrite(work->target, buffer, count, (off_t)offset) != (ssize_t)count) {
            perror("range_reader: cannot write the target");
            failed = 1;
        }
    }
    pthread_mutex_lock(&work->lock);
    work->failed |= failed;
    pthread_mutex_unlock(&work->lock);
    graviton_error_free(error);
    free(buffer);
    return NULL;
}

int main(int argc, char **argv)
{
    const int threads = argc == 5 ? atoi(argv[4]) : 0;
    if (threads < 1 || threads > MOST_THREADS) {
        fprintf(stderr, "usage: range_reader DIRECTORY ID TARGET THREADS    (1 to %d threads)\n", MOST_THREADS);
        return 2;
    }
    graviton_error *error = NULL;
    graviton_store *store = NULL;
    graviton_reader *reader = NULL;
    graviton_blob_id id;
    if (graviton_blob_id_parse(argv[2], strlen(argv[2]), &id, &error) != GRAVITON_OK
        || graviton_store_open(argv[1], strlen(argv[1]), &store, &error) != GRAVITON_OK
        || graviton_reader_open(store, &id, &reader, &error) != GRAVITON_OK) {
        fprintf(stderr, "range_reader: %s\n", graviton_error_message(error));
        graviton_error_free(error);
        graviton_store_free(store);
        return 1;
    }
    struct work work = {.reader = reader, .size = id.size, .lock = PTHREAD_MUTEX_INITIALIZER};
    work.target = open(argv[3], O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (work.target < 0) {
        perror("range_reader: cannot open the target");
        return 1;
    }
    pthread_t running[MOST_THREADS];
    int started = 0;
    while (started < threads && pthread_create(&running[started], NULL, run, &work) == 0) {
        started++;
    }
    for (int number = 0; number < started; number++) {
        pthread_join(running[number], NULL);
    }
    graviton_reader_free(reader);
    graviton_store_free(store);
    return close(work.target) != 0 || work.failed || started < threads;
}
