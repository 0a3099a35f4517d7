/* The codes that a program can meet, each provoked: those that functions.c has not covered. Unauthorized,
 * quota-exceeded, method-not-allowed, timeout, length-required, unsupported and rate-limited come only
 * from servers, and internal only from bugs. A test in graviton-ffi/src/error.rs passes all of the core's
 * codes through the error object. */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"

static char found_block[4096];

/* The path of the only block of a store. */
static const char *block_of(const char *store)
{
    char directory[3000];
    snprintf(directory, sizeof directory, "%s/cas/blocks/blake3", store);
    DIR *blocks = opendir(directory);
    CHECK(blocks != NULL);
    for (struct dirent *entry; (entry = readdir(blocks)) != NULL;) {
        if (entry->d_name[0] != '.') {
            snprintf(found_block, sizeof found_block, "%s/%s", directory, entry->d_name);
        }
    }
    closedir(blocks);
    return found_block;
}

static void change_byte(const char *path, off_t offset)
{
    unsigned char byte = 0;
    int fd = open(path, O_RDWR);
    CHECK(fd >= 0 && pread(fd, &byte, 1, offset) == 1);
    byte ^= 1;
    CHECK(pwrite(fd, &byte, 1, offset) == 1);
    close(fd);
}

static void sql(const char *store, const char *statement)
{
    char command[8192];
    snprintf(command, sizeof command,
             "python3 -c \"import sqlite3; c = sqlite3.connect('%s/manifests.db'); c.execute('PRAGMA busy_timeout=10000'); "
             "c.execute('%s'); c.commit()\"",
             store, statement);
    CHECK(system(command) == 0);
}

static int32_t find_bad_block(void *userdata, const graviton_verify_event *event)
{
    if (event->kind == GRAVITON_VERIFY_BLOCK) {
        CHECK(event->blob_count == 1 && event->blobs[0].size == 1000 && event->block.size == 1000);
        CHECK(event->text[0] == 0 && event->report == NULL);
        *(int32_t *)userdata = event->damage;
    }
    return 0;
}

static void damaged_blocks(const char *directory)
{
    char place[2000];
    unsigned char *bytes = some(1000, 5), room[1000];
    size_t count = 0;
    int32_t damage = 0;
    graviton_reader *reader = NULL;
    graviton_verify_options deep = GRAVITON_VERIFY_OPTIONS_INIT;
    graviton_verify_report report = GRAVITON_VERIFY_REPORT_INIT;
    graviton_repair_report repaired = GRAVITON_REPAIR_REPORT_INIT;
    deep.deep = 1;
    snprintf(place, sizeof place, "%s/damaged", directory);
    graviton_store *store = open_store(place), *whole = open_store(inside(directory, "whole"));
    graviton_blob_id id = put(store, bytes, 1000);
    put(whole, bytes, 1000);
    change_byte(block_of(place), 500);
    OK(graviton_reader_open(store, &id, &reader, &error));
    FAILS(graviton_reader_read_at(reader, 0, room, sizeof room, &count, &error), GRAVITON_ERROR_CORRUPT_BLOCK);
    FAILS(graviton_reader_read(reader, room, sizeof room, &count, &error), GRAVITON_ERROR_CORRUPT_BLOCK);
    /* The error sticks for calls that use the position, and for no others. */
    change_byte(block_of(place), 500);
    FAILS(graviton_reader_read(reader, room, sizeof room, &count, &error), GRAVITON_ERROR_CORRUPT_BLOCK);
    FAILS(graviton_reader_seek(reader, 0, GRAVITON_SEEK_SET, NULL, &error), GRAVITON_ERROR_CORRUPT_BLOCK);
    OK(graviton_reader_read_at(reader, 0, room, sizeof room, &count, &error));
    CHECK(count == 1000 && memcmp(room, bytes, 1000) == 0);
    graviton_reader_free(reader);

    change_byte(block_of(place), 500);
    FAILS(graviton_store_get(store, &id, room, sizeof room, NULL, NULL, &error), GRAVITON_ERROR_CORRUPT_BLOCK);
    OK(graviton_store_verify(store, &deep, find_bad_block, &damage, &report, &error));
    CHECK(damage == GRAVITON_DAMAGE_CORRUPT && report.clean == 0 && report.corrupt == 1 && report.complete == 1);
    OK(graviton_store_repair_from(store, whole, NULL, NULL, &repaired, &error));
    CHECK(repaired.repaired == 1 && repaired.bytes == 1000);
    expect_blob(store, &id, bytes, 1000);
    CHECK(truncate(block_of(place), 7) == 0);
    FAILS(graviton_store_get(store, &id, room, sizeof room, NULL, NULL, &error), GRAVITON_ERROR_CORRUPT_BLOCK);
    OK(graviton_store_verify(store, NULL, find_bad_block, &damage, &report, &error));
    CHECK(damage == GRAVITON_DAMAGE_WRONG_LENGTH);
    OK(graviton_store_repair_from(store, whole, NULL, NULL, &repaired, &error));
    CHECK(unlink(block_of(place)) == 0);
    FAILS(graviton_store_get(store, &id, room, sizeof room, NULL, NULL, &error), GRAVITON_ERROR_MISSING_BLOCK);
    OK(graviton_store_verify(store, NULL, find_bad_block, &damage, &report, &error));
    CHECK(damage == GRAVITON_DAMAGE_MISSING && report.missing == 1);
    graviton_store_free(whole);
    graviton_store_free(store);
    free(bytes);
}

static void expired_writer(const char *directory)
{
    char place[2000];
    unsigned char *bytes = some(40000000, 6);
    graviton_writer *writer = NULL;
    snprintf(place, sizeof place, "%s/expired", directory);
    graviton_store *store = open_store(place);
    OK(graviton_writer_open(store, NULL, &writer, &error));
    /* More than a small blob, so its row exists before it is finished. */
    OK(graviton_writer_write(writer, bytes, 40000000, &error));
    sql(place, "UPDATE blob SET state = 2, deleted_at = 1 WHERE state = 0");
    CHECK(graviton_writer_finish(writer, NULL, &error) == GRAVITON_ERROR_WRITER_EXPIRED);
    CHECK(graviton_error_is_retryable(error) == 1);
    graviton_error_free(error);
    error = NULL;
    FAILS(graviton_writer_finish(writer, NULL, &error), GRAVITON_ERROR_WRITER_EXPIRED);
    graviton_writer_free(writer);
    graviton_store_free(store);
    free(bytes);
}

static void databases(const char *directory)
{
    char place[2000], file[2100];
    graviton_store *store = NULL;
    graviton_config *config = NULL;
    snprintf(place, sizeof place, "%s/newer", directory);
    graviton_store_free(open_store(place));
    sql(place, "UPDATE store SET schema_version = 1000");
    FAILS(graviton_store_open(place, strlen(place), &store, &error), GRAVITON_ERROR_VERSION);

    snprintf(place, sizeof place, "%s/mangled", directory);
    store = open_store(place);
    graviton_blob_id id = put(store, "x", 1);
    OK(graviton_store_close(store, &error));
    graviton_store_free(store);
    store = NULL;
    snprintf(file, sizeof file, "%s/manifests.db", place);
    for (off_t offset = 0; offset < 2000; offset++) {
        change_byte(file, 100 + offset);
    }
    graviton_status status = graviton_store_open(place, strlen(place), &store, &error);
    if (status == GRAVITON_OK) {
        int32_t exists = 0;
        status = graviton_store_exists(store, &id, &exists, &error);
    }
    CHECK(status == GRAVITON_ERROR_CORRUPT_DATABASE);
    graviton_error_free(error);
    error = NULL;
    graviton_store_free(store);
    store = NULL;

    /* Nothing listens there. */
    OK(graviton_config_for_directory(directory, strlen(directory), &config, &error));
    set(config, "GRAVITON_MANIFEST_URL", "postgres://nobody@127.0.0.1:1/none");
    CHECK(graviton_config_open(config, &store, &error) == GRAVITON_ERROR_BACKEND_UNAVAILABLE);
    CHECK(graviton_error_is_retryable(error) == 1);
    graviton_error_free(error);
    error = NULL;
    set(config, "GRAVITON_MANIFEST_URL", "postgres://u:secret@127.0.0.1:1/none");
    CHECK(graviton_config_open(config, &store, &error) != GRAVITON_OK);
    CHECK(strstr(graviton_error_message(error), "secret") == NULL);
    CHECK(strstr(graviton_error_advice(error), "secret") == NULL);
    graviton_error_free(error);
    error = NULL;
    char value[64];
    OK(graviton_config_get(config, GRAVITON_LITERAL("GRAVITON_MANIFEST_URL"), value, sizeof value, NULL, &error));
    CHECK(strstr(value, "secret") == NULL);
    graviton_config_free(config);
}

static void limits(const char *directory)
{
    unsigned char *bytes = some(3000000, 7);
    graviton_store *store = open_store(inside(directory, "limited"));
    graviton_blob_id before = put(store, bytes, 1000);
    struct rlimit old, small = { 100000, 100000 };
    CHECK(getrlimit(RLIMIT_FSIZE, &old) == 0);
    small.rlim_max = old.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    CHECK(setrlimit(RLIMIT_FSIZE, &small) == 0);
    CHECK(graviton_store_put(store, bytes, 3000000, NULL, NULL, &error) == GRAVITON_ERROR_NO_SPACE);
    CHECK(graviton_error_errno(error) == EFBIG);
    graviton_error_free(error);
    error = NULL;
    CHECK(setrlimit(RLIMIT_FSIZE, &old) == 0);
    put(store, bytes, 3000000);
    expect_blob(store, &before, bytes, 1000);
    graviton_store_free(store);
    free(bytes);
}

static void descriptors(const char *directory)
{
    graviton_store *store = open_store(inside(directory, "descriptors"));
    graviton_blob_id id = put(store, "x", 1);
    INVALID(graviton_store_put_fd(store, -1, NULL, NULL, &error));
    INVALID(graviton_store_put_fd(store, 99999, NULL, NULL, &error));
    INVALID(graviton_store_get_fd(store, &id, -1, NULL, &error));
    INVALID(graviton_store_get_fd(store, &id, 99999, NULL, &error));
    INVALID(graviton_store_put_path(store, directory, strlen(directory), NULL, NULL, &error));
    INVALID(graviton_store_put_path(store, "a\0b", 3, NULL, NULL, &error));
    INVALID(graviton_store_put_path(store, "", 0, NULL, NULL, &error));
    FAILS(graviton_store_put_path(store, GRAVITON_LITERAL("/no/such/file"), NULL, NULL, &error),
          GRAVITON_ERROR_NOT_FOUND);
    /* Open in the wrong direction. */
    int fd = open(inside(directory, "written"), O_WRONLY | O_CREAT, 0600);
    CHECK(graviton_store_put_fd(store, fd, NULL, NULL, &error) == GRAVITON_ERROR_IO);
    CHECK(graviton_error_errno(error) == EBADF);
    graviton_error_free(error);
    error = NULL;
    close(fd);

    /* A pipe in non-blocking mode, in both directions. */
    int ends[2];
    char room[4] = "";
    CHECK(pipe2(ends, O_NONBLOCK) == 0);
    OK(graviton_store_get_fd(store, &id, ends[1], NULL, &error));
    CHECK(read(ends[0], room, sizeof room) == 1 && room[0] == 'x');
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        close(ends[0]);
        usleep(120000);
        _exit(write(ends[1], "late", 4) == 4 ? 0 : 1);
    }
    close(ends[1]);
    graviton_put_receipt receipt = GRAVITON_PUT_RECEIPT_INIT;
    OK(graviton_store_put_fd(store, ends[0], NULL, &receipt, &error));
    CHECK(receipt.id.size == 4);
    close(ends[0]);
    graviton_store_free(store);
}

/* SQLite syncs through this function. After a failed sync, only a store that is opened again can be
 * trusted. */
static int fail_syncs;

int fdatasync(int fd)
{
    if (fail_syncs) {
        errno = EIO;
        return -1;
    }
    return fsync(fd);
}

static void latched(const char *directory)
{
    graviton_store *store = open_store(inside(directory, "latched"));
    graviton_blob_id id = put(store, "before", 6);
    fail_syncs = 1;
    FAILS(graviton_store_put(store, (const unsigned char *)"lost", 4, NULL, NULL, &error), GRAVITON_ERROR_IO);
    fail_syncs = 0;
    FAILS(graviton_store_put(store, (const unsigned char *)"lost", 4, NULL, NULL, &error), GRAVITON_ERROR_LATCHED);
    expect_blob(store, &id, (const unsigned char *)"before", 6);
    graviton_store_free(store);
    store = open_store(inside(directory, "latched"));
    put(store, "after", 5);
    graviton_store_free(store);
}

/* Plain data with invalid numbers. */
static void wrong_numbers(const char *directory)
{
    graviton_store *store = open_store(inside(directory, "wrong"));
    graviton_blob_id id = put(store, "x", 1), bad = id;
    unsigned char room[8];
    size_t count = 0;
    char text[GRAVITON_BLOB_ID_TEXT_MAX];
    graviton_blob_stat stat = GRAVITON_BLOB_STAT_INIT;
    graviton_put_options options = GRAVITON_PUT_OPTIONS_INIT;
    bad.algo = 0;
    INVALID(graviton_store_stat(store, &bad, &stat, &error));
    bad.algo = 3;
    INVALID(graviton_blob_id_format(&bad, text, sizeof text, NULL, &error));
    bad = id;
    bad.reserved = 1;
    INVALID(graviton_store_stat(store, &bad, &stat, &error));
    bad = id;
    bad.size = UINT64_MAX;
    INVALID(graviton_store_stat(store, &bad, &stat, &error));
    options.expected = &bad;
    INVALID(graviton_store_put(store, room, 1, &options, NULL, &error));
    INVALID(graviton_blob_id_of(0, room, 1, &bad, &error));
    INVALID(graviton_config_adopt(NULL, 0, &error));
    INVALID(graviton_config_take_over(NULL, 0, &error));
    /* Structures of a size that no version has, and of a later version, for which this version fills in
     * the fields that it knows. */
    for (size_t size = 0; size < 8192; size++) {
        stat.struct_size = size;
        if (size < sizeof stat || size > 4096 || size % sizeof(size_t) != 0) {
            INVALID(graviton_store_stat(store, &id, &stat, &error));
        } else {
            stat.id.size = 0;
            OK(graviton_store_stat(store, &id, &stat, &error));
            CHECK(stat.struct_size == size && memcmp(&stat.id, &id, sizeof id) == 0);
        }
    }
    struct {
        graviton_blob_stat known;
        uint64_t later[2];
    } grown = { GRAVITON_BLOB_STAT_INIT, { 1, 2 } };
    grown.known.struct_size = sizeof grown;
    OK(graviton_store_stat(store, &id, &grown.known, &error));
    CHECK(grown.later[0] == 1 && grown.later[1] == 2);
    struct {
        graviton_put_options known;
        uint64_t later[2];
    } asks = { GRAVITON_PUT_OPTIONS_INIT, { 0, 0 } };
    asks.known.struct_size = sizeof asks;
    OK(graviton_store_put(store, (const unsigned char *)"grown", 5, &asks.known, NULL, &error));
    asks.later[1] = 1;
    INVALID(graviton_store_put(store, (const unsigned char *)"grown", 5, &asks.known, NULL, &error));
    /* NULL inside structures: an unset option, or a broken promise. */
    graviton_verify_options verify = GRAVITON_VERIFY_OPTIONS_INIT;
    OK(graviton_store_verify(store, &verify, NULL, NULL, NULL, &error));
    verify.from_length = 5;
    INVALID(graviton_store_verify(store, &verify, NULL, NULL, NULL, &error));
    /* Lengths that are really negative numbers. */
    INVALID(graviton_store_put(store, room, (size_t)-1, NULL, NULL, &error));
    INVALID(graviton_store_put(store, room, (size_t)PTRDIFF_MAX + 1, NULL, NULL, &error));
    INVALID(graviton_store_read_range(store, &id, 0, room, (size_t)-1, &count, &error));
    graviton_store *none = NULL;
    INVALID(graviton_store_open("x", (size_t)-1, &none, &error));
    INVALID(graviton_blob_id_parse("x", (size_t)-1, &bad, &error));
    graviton_copy_options copy = GRAVITON_COPY_OPTIONS_INIT;
    copy.ids = &id;
    copy.id_count = (size_t)-1;
    INVALID(graviton_store_copy_from(store, store, &copy, NULL, NULL, NULL, &error));
    copy.id_count = (size_t)PTRDIFF_MAX / 2;
    INVALID(graviton_store_copy_from(store, store, &copy, NULL, NULL, NULL, &error));
    /* Misaligned. */
    unsigned char misaligned[2 * sizeof stat];
    void *odd = misaligned + 1 + ((size_t)misaligned & 1);
    INVALID(graviton_store_stat(store, odd, &stat, &error));
    INVALID(graviton_store_stat(store, &id, odd, &error));
    INVALID(graviton_store_stat(odd, &id, &stat, &error));
    INVALID(graviton_store_exists(store, &id, odd, &error));
    options.expected = odd;
    INVALID(graviton_store_put(store, room, 1, &options, NULL, &error));
    copy.ids = odd;
    copy.id_count = 1;
    INVALID(graviton_store_copy_from(store, store, &copy, NULL, NULL, NULL, &error));
    /* If the pointer for the error is invalid, only the status can tell, and the call did nothing. */
    int32_t exists = 7;
    memset(misaligned, 0x55, sizeof misaligned);
    CHECK(graviton_store_exists(store, &id, &exists, odd) == GRAVITON_ERROR_INVALID_ARGUMENT && exists == 7);
    for (size_t index = 0; index < sizeof misaligned; index++) {
        CHECK(misaligned[index] == 0x55);
    }
    CHECK(graviton_error_code(odd) == GRAVITON_ERROR_INVALID_ARGUMENT);
    CHECK(strcmp(graviton_error_name(odd), "invalid-argument") == 0);
    CHECK(graviton_error_message(odd)[0] == 0 && graviton_error_advice(odd)[0] == 0);
    CHECK(graviton_error_is_retryable(odd) == 0 && graviton_error_errno(odd) == 0);
    CHECK(graviton_error_callback_code(odd) == 0);
    graviton_error_free(odd);
    graviton_store_free(odd);
    /* A name or value that is not UTF-8, or contains a NUL. */
    graviton_config *config = NULL;
    OK(graviton_config_new(&config, &error));
    INVALID(graviton_config_set(config, "\xff", 1, "x", 1, &error));
    INVALID(graviton_config_set(config, GRAVITON_LITERAL("GRAVITON_HASH"), "\xc3", 1, &error));
    FAILS(graviton_config_set(config, "GRAVITON_\0", 10, "x", 1, &error), GRAVITON_ERROR_CONFIG);
    INVALID(graviton_config_adopt(config, 2, &error));
    INVALID(graviton_config_adopt(config, -1, &error));
    INVALID(graviton_config_take_over(config, 2, &error));
    graviton_config_free(config);
    FAILS(graviton_blob_id_parse("\xff\xfe", 2, &bad, &error), GRAVITON_ERROR_INVALID_ID);
    graviton_store_free(store);
}

int main(int count, char **arguments)
{
    CHECK(count == 2);
    damaged_blocks(arguments[1]);
    expired_writer(arguments[1]);
    databases(arguments[1]);
    limits(arguments[1]);
    descriptors(arguments[1]);
    latched(arguments[1]);
    wrong_numbers(arguments[1]);
    return 0;
}
