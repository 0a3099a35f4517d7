/* Callbacks: they abort with codes of their own, stop in an orderly way, call into the library, and end
 * calls that wait. */
#include <pthread.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <fcntl.h>
#include <unistd.h>

#include "check.h"

#define LARGE ((size_t)8 * 1000 * 1000)
/* More bytes than any machine writes before it asks a cancel callback. */
#define MUCH ((size_t)96 * 1000 * 1000)

static unsigned char *large;

/* The call is cancelled, with this code. */
#define CANCELLED(call, code)                                                                                          \
    do {                                                                                                               \
        CHECK((call) == GRAVITON_ERROR_CANCELLED && error != NULL);                                                    \
        CHECK(graviton_error_callback_code(error) == (code));                                                          \
        graviton_error_free(error);                                                                                    \
        error = NULL;                                                                                                  \
    } while (0)

static int32_t abort_progress(void *userdata, uint64_t done, uint64_t total)
{
    (void)total;
    return done > 1000000 ? *(int32_t *)userdata : 0;
}

static int32_t abort_read(void *userdata, uint8_t *buffer, size_t capacity, size_t *count)
{
    int32_t *left = userdata;
    memset(buffer, 'r', capacity);
    *count = capacity;
    return --*left > 0 ? 0 : -77;
}

static int32_t too_much(void *userdata, uint8_t *buffer, size_t capacity, size_t *count)
{
    (void)userdata;
    (void)buffer;
    *count = capacity + 1;
    return 0;
}

static void aborts(graviton_store *store)
{
    graviton_put_options options = GRAVITON_PUT_OPTIONS_INIT;
    graviton_get_options get = GRAVITON_GET_OPTIONS_INIT;
    graviton_put_receipt receipt = GRAVITON_PUT_RECEIPT_INIT;
    graviton_store_stats stats = GRAVITON_STORE_STATS_INIT;
    int32_t code = 4711, calls = 5;
    options.progress = abort_progress;
    options.progress_userdata = &code;
    CANCELLED(graviton_store_put(store, large, LARGE, &options, &receipt, &error), 4711);
    code = -1;
    CANCELLED(graviton_store_put(store, large, LARGE, &options, &receipt, &error), -1);
    CANCELLED(graviton_store_put_callback(store, abort_read, &calls, NULL, &receipt, &error), -77);
    INVALID(graviton_store_put_callback(store, too_much, NULL, NULL, &receipt, &error));
    CHECK(receipt.id.size == 0);
    OK(graviton_store_stats_get(store, &stats, &error));
    CHECK(stats.blobs == 0);

    graviton_blob_id id = put(store, large, LARGE);
    unsigned char *room = malloc(LARGE);
    get.progress = abort_progress;
    get.progress_userdata = &code;
    code = 3;
    CANCELLED(graviton_store_get(store, &id, room, LARGE, &get, NULL, &error), 3);
    int null = open("/dev/null", O_WRONLY);
    CANCELLED(graviton_store_get_fd(store, &id, null, &get, &error), 3);
    close(null);
    free(room);
}

/* The state of callbacks that call into the library. */
struct inside_call {
    graviton_store *store;
    graviton_blob_id id;
    int code;
    int calls;
    int most;
};

/* All calls that a callback might make on the store that calls it. */
static void call_in(struct inside_call *call)
{
    char text[32];
    graviton_blob_stat stat = GRAVITON_BLOB_STAT_INIT;
    graviton_writer *writer = NULL;
    graviton_put_receipt receipt = GRAVITON_PUT_RECEIPT_INIT;
    OK(graviton_store_stat(call->store, &call->id, &stat, &error));
    /* New blobs are behind the position of a walk, which would otherwise never end. */
    if (call->calls >= call->most) {
        return;
    }
    int length = snprintf(text, sizeof text, "from within %d", call->calls++);
    graviton_blob_id id = put(call->store, text, (size_t)length);
    expect_blob(call->store, &id, (unsigned char *)text, (size_t)length);
    if (call->calls % 4 == 1) {
        OK(graviton_writer_open(call->store, NULL, &writer, &error));
        OK(graviton_writer_write(writer, large, 2500000, &error));
        OK(graviton_writer_finish(writer, &receipt, &error));
        graviton_writer_free(writer);
    }
}

static int32_t progress_calls_in(void *userdata, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    call_in(userdata);
    return 0;
}

static int32_t gc_calls_in(void *userdata, const graviton_gc_report *report, const graviton_blob_id *named)
{
    CHECK((named == NULL) == (report->named_count == 0));
    call_in(userdata);
    return ((struct inside_call *)userdata)->code;
}

static int32_t verify_calls_in(void *userdata, const graviton_verify_event *event)
{
    CHECK(event->kind != GRAVITON_VERIFY_PROGRESS || event->report != NULL);
    call_in(userdata);
    return ((struct inside_call *)userdata)->code;
}

static int32_t copy_calls_in(void *userdata, const graviton_copy_report *report, const graviton_blob_id *damaged)
{
    CHECK((damaged == NULL) == (report->damaged_count == 0));
    call_in(userdata);
    return ((struct inside_call *)userdata)->code;
}

static int32_t repair_calls_in(void *userdata, const graviton_repair_report *report, const graviton_block_key *lost)
{
    CHECK((lost == NULL) == (report->lost_count == 0));
    call_in(userdata);
    return ((struct inside_call *)userdata)->code;
}

static void call_into_the_store(const char *directory)
{
    graviton_store *store = open_store(inside(directory, "within"));
    graviton_store *other = open_store(inside(directory, "within-other"));
    struct inside_call call = { store, put(store, "known", 5), 0, 0, 12 };
    graviton_put_options options = GRAVITON_PUT_OPTIONS_INIT;
    graviton_get_options get = GRAVITON_GET_OPTIONS_INIT;
    options.progress = get.progress = progress_calls_in;
    options.progress_userdata = get.progress_userdata = &call;
    graviton_put_receipt receipt = GRAVITON_PUT_RECEIPT_INIT;
    OK(graviton_store_put(store, large, LARGE, &options, &receipt, &error));
    unsigned char *room = malloc(LARGE);
    OK(graviton_store_get(store, &receipt.id, room, LARGE, &get, NULL, &error));
    CHECK(memcmp(room, large, LARGE) == 0 && call.calls > 2);
    free(room);

    graviton_gc_options collect = GRAVITON_GC_OPTIONS_INIT;
    graviton_gc_report collected = GRAVITON_GC_REPORT_INIT;
    collect.grace_ms = GRAVITON_GC_NO_GRACE;
    OK(graviton_store_delete(store, &receipt.id, &error));
    OK(graviton_store_gc(store, &collect, gc_calls_in, &call, &collected, &error));
    CHECK(collected.complete == 1);
    int before = call.calls;
    call.most += 12;
    call.code = GRAVITON_STOP;
    OK(graviton_store_delete(store, &call.id, &error));
    OK(graviton_store_restore(store, &call.id, &error));
    OK(graviton_store_gc(store, &collect, gc_calls_in, &call, &collected, &error));
    CHECK(collected.complete == 0 && call.calls > before);
    call.code = 99;
    CANCELLED(graviton_store_gc(store, &collect, gc_calls_in, &call, &collected, &error), 99);

    graviton_verify_options verify = GRAVITON_VERIFY_OPTIONS_INIT;
    graviton_verify_report verified = GRAVITON_VERIFY_REPORT_INIT;
    call.code = 0;
    call.most += 12;
    verify.deep = 1;
    OK(graviton_store_verify(store, &verify, verify_calls_in, &call, &verified, &error));
    CHECK(verified.clean == 1 && verified.complete == 1);
    call.code = GRAVITON_STOP;
    OK(graviton_store_verify(store, &verify, verify_calls_in, &call, &verified, &error));
    CHECK(verified.complete == 0 && verified.cursor[0] != 0);
    /* The verification continues from there. */
    char cursor[GRAVITON_VERIFY_CURSOR_MAX];
    strcpy(cursor, verified.cursor);
    verify.from = cursor;
    verify.from_length = strlen(cursor);
    OK(graviton_store_verify(store, &verify, NULL, NULL, &verified, &error));
    CHECK(verified.complete == 1 && verified.clean == 1);
    verify.from = "nowhere";
    verify.from_length = 7;
    INVALID(graviton_store_verify(store, &verify, NULL, NULL, &verified, &error));
    verify.from = NULL;
    verify.from_length = 0;
    call.code = -5;
    CANCELLED(graviton_store_verify(store, &verify, verify_calls_in, &call, &verified, &error), -5);

    graviton_copy_report copied = GRAVITON_COPY_REPORT_INIT;
    graviton_repair_report repaired = GRAVITON_REPAIR_REPORT_INIT;
    call.code = GRAVITON_STOP;
    call.most += 12;
    OK(graviton_store_copy_from(other, store, NULL, copy_calls_in, &call, &copied, &error));
    CHECK(copied.complete == 0);
    call.code = 12;
    CANCELLED(graviton_store_copy_from(other, store, NULL, copy_calls_in, &call, &copied, &error), 12);
    call.code = 0;
    graviton_copy_options only = GRAVITON_COPY_OPTIONS_INIT;
    only.ids = &call.id;
    only.id_count = 1;
    OK(graviton_store_copy_from(other, store, &only, copy_calls_in, &call, &copied, &error));
    CHECK(copied.complete == 1);
    OK(graviton_store_repair_from(other, store, repair_calls_in, &call, &repaired, &error));
    CHECK(repaired.complete == 1);
    call.code = GRAVITON_STOP;
    OK(graviton_store_repair_from(other, store, repair_calls_in, &call, &repaired, &error));
    CHECK(repaired.complete == 0);
    call.code = 13;
    CANCELLED(graviton_store_repair_from(other, store, repair_calls_in, &call, &repaired, &error), 13);
    graviton_store_free(other);
    graviton_store_free(store);
}

/* A writer used from its own callback: detected, not a deadlock. */
static graviton_writer *own;

static int32_t use_own_writer(void *userdata)
{
    (void)userdata;
    INVALID(graviton_writer_write(own, large, 1, &error));
    return 31;
}

static int32_t always(void *userdata)
{
    ++*(int *)userdata;
    return 42;
}

static int32_t never(void *userdata)
{
    ++*(int *)userdata;
    return 0;
}

struct silence {
    int listening;
    int accepted;
};

/* A database that accepts connections and never answers. */
static void *silent_server(void *userdata)
{
    struct silence *silence = userdata;
    silence->accepted = accept(silence->listening, NULL, NULL);
    return NULL;
}

static void cancel_what_waits(const char *directory)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
    socklen_t length = sizeof address;
    struct silence silence = { socket(AF_INET, SOCK_STREAM, 0), -1 };
    CHECK(silence.listening >= 0 && bind(silence.listening, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(listen(silence.listening, 4) == 0);
    CHECK(getsockname(silence.listening, (struct sockaddr *)&address, &length) == 0);
    pthread_t server;
    CHECK(pthread_create(&server, NULL, silent_server, &silence) == 0);

    char url[128];
    int asked = 0;
    graviton_config *config = NULL;
    graviton_store *store = NULL;
    snprintf(url, sizeof url, "postgres://nobody@127.0.0.1:%d/none", ntohs(address.sin_port));
    OK(graviton_config_new(&config, &error));
    set(config, "GRAVITON_FS_ROOT", inside(directory, "silent"));
    set(config, "GRAVITON_MANIFEST_URL", url);
    OK(graviton_config_set_cancel(config, always, &asked, &error));
    CANCELLED(graviton_config_open(config, &store, &error), 42);
    CHECK(asked == 1 && store == NULL);
    pthread_join(server, NULL);
    close(silence.accepted);
    close(silence.listening);
    graviton_config_free(config);
}

static int32_t endless(void *userdata, uint8_t *buffer, size_t capacity, size_t *count)
{
    unsigned *calls = userdata;
    noise(buffer, capacity < 64 ? capacity : 64, ++*calls);
    *count = capacity;
    return 0;
}

static void cancel_handles(graviton_store *store)
{
    int asked = 0;
    unsigned calls = 0;
    graviton_store *watched = NULL;
    OK(graviton_store_with_cancel(store, always, &asked, &watched, &error));
    /* A put that would never end. */
    CANCELLED(graviton_store_put_callback(watched, endless, &calls, NULL, NULL, &error), 42);
    CHECK(asked == 1 && calls > 0);
    /* One long write, in a writer that then only returns that error. */
    unsigned char *much = some(MUCH, 9);
    graviton_writer *writer = NULL;
    graviton_status status = GRAVITON_OK;
    OK(graviton_writer_open(watched, NULL, &writer, &error));
    while (status == GRAVITON_OK) {
        status = graviton_writer_write(writer, much, MUCH, &error);
    }
    CHECK(status == GRAVITON_ERROR_CANCELLED && graviton_error_callback_code(error) == 42);
    graviton_error_free(error);
    error = NULL;
    /* The error sticks, with its code. */
    CANCELLED(graviton_writer_finish(writer, NULL, &error), 42);
    CANCELLED(graviton_writer_write(writer, much, 1, &error), 42);
    graviton_writer_free(writer);

    /* The handle without a cancel callback continues; so does one that is never told to end. */
    put(store, "not asked", 9);
    graviton_store *patient = NULL, *plain = NULL;
    asked = 0;
    OK(graviton_store_with_cancel(watched, never, &asked, &patient, &error));
    OK(graviton_store_with_cancel(watched, NULL, NULL, &plain, &error));
    put(patient, large, LARGE);
    put(plain, large, LARGE);

    graviton_store_free(patient);
    OK(graviton_store_with_cancel(store, use_own_writer, NULL, &patient, &error));
    OK(graviton_writer_open(patient, NULL, &own, &error));
    status = GRAVITON_OK;
    while (status == GRAVITON_OK) {
        status = graviton_writer_write(own, much, MUCH, &error);
    }
    CHECK(status == GRAVITON_ERROR_CANCELLED && graviton_error_callback_code(error) == 31);
    graviton_error_free(error);
    error = NULL;
    graviton_writer_free(own);
    free(much);
    graviton_store_free(patient);
    graviton_store_free(watched);
    graviton_store_free(plain);
}

/* The cancel callback of a call does not end calls that its other callbacks make, and each call has its
 * own code. */
static graviton_store *unwatched, *impatient;

/* Says no as soon as the callback of the call has begun. */
static int32_t once_begun(void *userdata)
{
    return *(int *)userdata ? 42 : 0;
}

static int32_t seven(void *userdata)
{
    ++*(int *)userdata;
    return 7;
}

static int32_t read_and_call(void *userdata, uint8_t *buffer, size_t capacity, size_t *count)
{
    unsigned calls = 0;
    *(int *)userdata = 1;
    memset(buffer, 'n', capacity);
    *count = capacity;
    /* Long enough for the outer cancel callback to be due. */
    usleep(60000);
    graviton_blob_id id = put(unwatched, large, LARGE);
    graviton_writer *writer = NULL;
    OK(graviton_writer_open(unwatched, NULL, &writer, &error));
    OK(graviton_writer_write(writer, large, LARGE, &error));
    OK(graviton_writer_finish(writer, NULL, &error));
    graviton_writer_free(writer);
    expect_blob(unwatched, &id, large, LARGE);
    CANCELLED(graviton_store_put_callback(impatient, endless, &calls, NULL, NULL, &error), 7);
    return 0;
}

static void cancel_within_callbacks(const char *directory)
{
    int begun = 0, inner = 0;
    graviton_store *store = open_store(inside(directory, "outer")), *watched = NULL;
    unwatched = open_store(inside(directory, "inner"));
    OK(graviton_store_with_cancel(store, once_begun, &begun, &watched, &error));
    OK(graviton_store_with_cancel(store, seven, &inner, &impatient, &error));
    CANCELLED(graviton_store_put_callback(watched, read_and_call, &begun, NULL, NULL, &error), 42);
    CHECK(begun == 1 && inner > 0);
    graviton_store_free(impatient);
    graviton_store_free(watched);
    graviton_store_free(unwatched);
    graviton_store_free(store);
}

int main(int count, char **arguments)
{
    CHECK(count == 2);
    large = some(LARGE, 2);
    graviton_store *store = open_store(inside(arguments[1], "store"));
    aborts(store);
    cancel_handles(store);
    graviton_store_free(store);
    call_into_the_store(arguments[1]);
    cancel_what_waits(arguments[1]);
    cancel_within_callbacks(arguments[1]);
    free(large);
    return 0;
}
