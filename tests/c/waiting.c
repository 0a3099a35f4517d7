/* Descriptors whose other end is silent: a call that waits for one can be cancelled, and a close ends it,
 * in every mode of the descriptor. Data that arrives in pieces is stored whole. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"

#define LARGE ((size_t)3 * 1000 * 1000)

static unsigned char *large;
static graviton_store *store, *watched;
static graviton_blob_id id;
static atomic_int asked;

static int32_t enough(void *userdata)
{
    (void)userdata;
    return ++asked == 2 ? 42 : 0;
}

/* The cancel callback ends the call, with its code. */
#define CANCELLED(call)                                                                                                \
    do {                                                                                                               \
        asked = 0;                                                                                                     \
        CHECK((call) == GRAVITON_ERROR_CANCELLED && error != NULL);                                                    \
        CHECK(graviton_error_callback_code(error) == 42 && asked == 2);                                                \
        graviton_error_free(error);                                                                                    \
        error = NULL;                                                                                                  \
    } while (0)

/* Both ends of a pipe or a socket pair: the first is read from and the second written to. */
enum kind { PIPE, SOCKET, KINDS };

static void connected(enum kind kind, int flags, int ends[2])
{
    if (kind == PIPE) {
        CHECK(pipe2(ends, flags) == 0);
    } else {
        CHECK(socketpair(AF_UNIX, SOCK_STREAM | (flags & O_NONBLOCK ? SOCK_NONBLOCK : 0), 0, ends) == 0);
    }
}

static void close_both(int ends[2])
{
    close(ends[0]);
    close(ends[1]);
}

static void cancelled(const char *directory)
{
    static const int modes[] = { 0, O_NONBLOCK };
    int ends[2];
    for (int kind = 0; kind < KINDS; kind++) {
        for (int mode = 0; mode < 2; mode++) {
            connected(kind, modes[mode], ends);
            CANCELLED(graviton_store_put_fd(watched, ends[0], NULL, NULL, &error));
            /* The same in the middle of a stream; nothing is stored. */
            CHECK(write(ends[1], "begun", 5) == 5);
            CANCELLED(graviton_store_put_fd(watched, ends[0], NULL, NULL, &error));
            CANCELLED(graviton_store_get_fd(watched, &id, ends[1], NULL, &error));
            close_both(ends);
        }
    }
    graviton_store_stats stats = GRAVITON_STORE_STATS_INIT;
    OK(graviton_store_stats_get(store, &stats, &error));
    CHECK(stats.blobs == 1);

    const char *fifo = inside(directory, "fifo");
    CHECK(mkfifo(fifo, 0600) == 0);
    CANCELLED(graviton_store_put_path(watched, fifo, strlen(fifo), NULL, NULL, &error));
}

/* Closes once the other thread has had time to wait. A call that has not begun by then is refused too. */
static void *close_soon(void *userdata)
{
    usleep(200000);
    CHECK(graviton_store_close(userdata, NULL) == GRAVITON_OK);
    return NULL;
}

static void closed(const char *directory)
{
    for (int mode = 0; mode < 4; mode++) {
        int ends[2];
        pthread_t closer;
        graviton_store *closing = open_store(inside(directory, "closing"));
        graviton_blob_id there = put(closing, large, LARGE);
        connected(mode & 1 ? SOCKET : PIPE, mode & 2 ? O_NONBLOCK : 0, ends);
        CHECK(pthread_create(&closer, NULL, close_soon, closing) == 0);
        if (mode == 0 || mode == 3) {
            FAILS(graviton_store_put_fd(closing, ends[0], NULL, NULL, &error), GRAVITON_ERROR_CLOSED);
        } else {
            FAILS(graviton_store_get_fd(closing, &there, ends[1], NULL, &error), GRAVITON_ERROR_CLOSED);
        }
        CHECK(pthread_join(closer, NULL) == 0);
        close_both(ends);
        graviton_store_free(closing);
    }
}

struct other_end {
    int fd;
    const char *path;
    unsigned char *room;
};

/* Writes all, in pieces of many sizes, sometimes after a pause. */
static void *write_pieces(void *userdata)
{
    struct other_end *end = userdata;
    if (end->path != NULL) {
        usleep(120000);
        end->fd = open(end->path, O_WRONLY);
    }
    for (size_t at = 0, piece = 1; at < LARGE; piece = piece * 3 + 1) {
        size_t count = piece < LARGE - at ? piece : LARGE - at;
        ssize_t written = write(end->fd, large + at, count);
        if (written < 0) {
            CHECK(errno == EAGAIN);
            usleep(1000);
        } else {
            at += (size_t)written;
        }
        if (piece == 4) {
            usleep(120000);
        }
    }
    close(end->fd);
    return NULL;
}

static void *read_pieces(void *userdata)
{
    struct other_end *end = userdata;
    for (size_t at = 0; at < LARGE;) {
        ssize_t count = read(end->fd, end->room + at, LARGE - at);
        if (count < 0) {
            CHECK(errno == EAGAIN);
            usleep(1000);
        } else {
            CHECK(count > 0);
            at += (size_t)count;
        }
        if (at < 100000) {
            usleep(10000);
        }
    }
    return NULL;
}

/* Data that arrives in pieces and with pauses is stored whole. The calls of this callback are not counted,
 * because their number depends on timing. */
static int32_t go_on(void *userdata)
{
    (void)userdata;
    return 0;
}

static void whole(const char *directory)
{
    graviton_store *patient = NULL;
    graviton_put_receipt receipt = GRAVITON_PUT_RECEIPT_INIT;
    pthread_t thread;
    int ends[2];
    OK(graviton_store_with_cancel(store, go_on, NULL, &patient, &error));
    for (int mode = 0; mode < 4; mode++) {
        connected(mode & 1 ? SOCKET : PIPE, mode & 2 ? O_NONBLOCK : 0, ends);
        struct other_end end = { ends[1], NULL, NULL };
        CHECK(pthread_create(&thread, NULL, write_pieces, &end) == 0);
        OK(graviton_store_put_fd(patient, ends[0], NULL, &receipt, &error));
        CHECK(pthread_join(thread, NULL) == 0);
        CHECK(memcmp(&receipt.id, &id, sizeof id) == 0);
        close(ends[0]);

        connected(mode & 1 ? SOCKET : PIPE, mode & 2 ? O_NONBLOCK : 0, ends);
        end = (struct other_end){ ends[0], NULL, malloc(LARGE) };
        CHECK(pthread_create(&thread, NULL, read_pieces, &end) == 0);
        OK(graviton_store_get_fd(patient, &id, ends[1], NULL, &error));
        CHECK(pthread_join(thread, NULL) == 0);
        CHECK(memcmp(end.room, large, LARGE) == 0);
        free(end.room);
        close_both(ends);
    }
    /* A FIFO, whose writer comes later than its reader. */
    const char *fifo = inside(directory, "fifo");
    struct other_end end = { -1, fifo, NULL };
    CHECK(pthread_create(&thread, NULL, write_pieces, &end) == 0);
    OK(graviton_store_put_path(patient, fifo, strlen(fifo), NULL, &receipt, &error));
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(memcmp(&receipt.id, &id, sizeof id) == 0);
    graviton_store_free(patient);
}

/* Open in the wrong direction, so no data ever comes. */
static void wrong_direction(void)
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    CHECK(graviton_store_put_fd(store, ends[1], NULL, NULL, &error) == GRAVITON_ERROR_IO);
    CHECK(graviton_error_errno(error) == EBADF);
    graviton_error_free(error);
    CHECK(graviton_store_get_fd(store, &id, ends[0], NULL, &error) == GRAVITON_ERROR_IO);
    CHECK(graviton_error_errno(error) == EBADF);
    graviton_error_free(error);
    error = NULL;
    close_both(ends);
}

static int leased;

static void give_back(int signal)
{
    (void)signal;
    fcntl(leased, F_SETLEASE, F_UNLCK);
}

/* A file with a lease of another process is read once the lease was returned. */
static void lease(const char *directory)
{
    const char *path = inside(directory, "leased");
    graviton_put_receipt receipt = GRAVITON_PUT_RECEIPT_INIT;
    leased = open(path, O_RDWR | O_CREAT, 0600);
    CHECK(leased >= 0 && write(leased, "leased", 6) == 6);
    signal(SIGIO, give_back);
    CHECK(fcntl(leased, F_SETLEASE, F_WRLCK) == 0);
    OK(graviton_store_put_path(store, path, strlen(path), NULL, &receipt, &error));
    CHECK(receipt.id.size == 6);
    signal(SIGIO, SIG_DFL);
    close(leased);
}

int main(int count, char **arguments)
{
    CHECK(count == 2);
    large = some(LARGE, 11);
    store = open_store(inside(arguments[1], "store"));
    id = put(store, large, LARGE);
    OK(graviton_store_with_cancel(store, enough, NULL, &watched, &error));
    cancelled(arguments[1]);
    closed(arguments[1]);
    whole(arguments[1]);
    wrong_direction();
    lease(arguments[1]);
    graviton_store_free(watched);
    graviton_store_free(store);
    free(large);
    return 0;
}
