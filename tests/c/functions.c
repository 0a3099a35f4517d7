/* Every function works as the header says. */
#include <fcntl.h>
#include <unistd.h>

#include "check.h"

/* Plain data that never grows. */
_Static_assert(sizeof(graviton_blob_id) == 48 && sizeof(graviton_block_key) == 48, "a program keeps these");
_Static_assert(sizeof(graviton_manifest_entry) == 56 && offsetof(graviton_manifest_entry, key) == 8, "and these");

#define LARGE ((size_t)3 * 1000 * 1000 + 7)

static unsigned char *large;

static void versions_and_tables(void)
{
    char text[32];
    snprintf(text, sizeof text, "%d.%d.%d", GRAVITON_VERSION_MAJOR, GRAVITON_VERSION_MINOR, GRAVITON_VERSION_PATCH);
    CHECK(strcmp(text, GRAVITON_VERSION) == 0 && strcmp(graviton_version(), text) == 0);
    CHECK(graviton_version_number() == GRAVITON_VERSION_NUMBER);
    CHECK(graviton_recommended_buffer_size() >= 4096);

    CHECK(graviton_status_count() >= 28);
    for (size_t index = 0; index < graviton_status_count(); index++) {
        graviton_status status = graviton_status_at(index);
        CHECK(status == -(int)index - 1 && graviton_status_name(status)[0] != 0);
    }
    CHECK(graviton_status_at(graviton_status_count()) == GRAVITON_OK && graviton_status_at((size_t)-1) == GRAVITON_OK);
    CHECK(strcmp(graviton_status_name(GRAVITON_OK), "ok") == 0);
    CHECK(strcmp(graviton_status_name(GRAVITON_ERROR_NOT_FOUND), "not-found") == 0);
    CHECK(graviton_status_name(1) == NULL && graviton_status_name(-1000) == NULL);
    CHECK(graviton_status_is_retryable(GRAVITON_ERROR_WRITER_EXPIRED) == 1);
    CHECK(graviton_status_is_retryable(GRAVITON_ERROR_NOT_FOUND) == 0 && graviton_status_is_retryable(7) == 0);

    CHECK(graviton_setting_count() >= 18);
    for (size_t index = 0; index < graviton_setting_count(); index++) {
        CHECK(graviton_setting_name(index)[0] != 0 && graviton_setting_default(index) != NULL);
        CHECK(graviton_setting_meaning(index)[0] != 0);
    }
    CHECK(graviton_setting_name(graviton_setting_count()) == NULL);
    CHECK(graviton_setting_default((size_t)-1) == NULL && graviton_setting_meaning((size_t)-1) == NULL);
}

static void errors(void)
{
    /* No error: nothing to read, and nothing to free. */
    CHECK(graviton_error_code(NULL) == GRAVITON_OK && strcmp(graviton_error_name(NULL), "ok") == 0);
    CHECK(graviton_error_message(NULL)[0] == 0 && graviton_error_advice(NULL)[0] == 0);
    CHECK(graviton_error_is_retryable(NULL) == 0 && graviton_error_errno(NULL) == 0);
    CHECK(graviton_error_callback_code(NULL) == 0);
    graviton_error_free(NULL);

    graviton_blob_id id;
    CHECK(graviton_blob_id_parse("x", 1, &id, &error) == GRAVITON_ERROR_INVALID_ID);
    CHECK(strstr(graviton_error_message(error), "\"x\"") != NULL && graviton_error_advice(error)[0] != 0);
    CHECK(graviton_error_is_retryable(error) == 0 && graviton_error_errno(error) == 0);
    CHECK(graviton_error_callback_code(error) == 0);
    graviton_error_free(error);
    /* A success writes NULL over any earlier value. */
    error = (graviton_error *)(void *)&id;
    OK(graviton_blob_id_of(GRAVITON_ALGO_SHA256, NULL, 0, &id, &error));
    /* A caller that does not need the error may pass NULL. */
    CHECK(graviton_blob_id_parse("x", 1, &id, NULL) == GRAVITON_ERROR_INVALID_ID);

    graviton_store *store = NULL;
    CHECK(graviton_store_open(GRAVITON_LITERAL("/dev/null/x"), &store, &error) != GRAVITON_OK && store == NULL);
    CHECK(graviton_error_errno(error) == ENOTDIR);
    graviton_error_free(error);
    error = NULL;
}

static void ids(void)
{
    static const char hello[] = "blake3:ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f:5";
    graviton_blob_id id, other;
    char text[GRAVITON_BLOB_ID_TEXT_MAX];
    size_t length = 0;
    int32_t order = 7;
    OK(graviton_blob_id_of(GRAVITON_ALGO_BLAKE3, (const unsigned char *)"hello", 5, &id, &error));
    OK(graviton_blob_id_format(&id, text, sizeof text, &length, &error));
    CHECK(strcmp(text, hello) == 0 && length == strlen(hello));
    OK(graviton_blob_id_parse(hello, strlen(hello), &other, &error));
    CHECK(memcmp(&id, &other, sizeof id) == 0);
    OK(graviton_blob_id_compare(&id, &other, &order, &error));
    CHECK(order == 0);
    other.size = 6;
    OK(graviton_blob_id_compare(&id, &other, &order, &error));
    CHECK(order == -1);
    OK(graviton_blob_id_compare(&other, &id, &order, &error));
    CHECK(order == 1);
    /* Only the length; exact space; one byte too little. */
    OK(graviton_blob_id_format(&id, NULL, 0, &length, &error));
    OK(graviton_blob_id_format(&id, text, length + 1, NULL, &error));
    INVALID(graviton_blob_id_format(&id, text, length, &length, &error));

    graviton_block_key key;
    memcpy(&key, &id, sizeof key);
    OK(graviton_block_key_format(&key, text, sizeof text, &length, &error));
    CHECK(strcmp(text, hello) == 0);
    graviton_block_key parsed = { 0, 0, 0, { 0 } };
    OK(graviton_block_key_parse(hello, strlen(hello), &parsed, &error));
    CHECK(memcmp(&key, &parsed, sizeof key) == 0);
    /* A blob may be empty or large; a block may not. */
    snprintf(text, sizeof text, "%.*s0", (int)strlen(hello) - 1, hello);
    OK(graviton_blob_id_parse(text, strlen(text), &other, &error));
    FAILS(graviton_block_key_parse(text, strlen(text), &parsed, &error), GRAVITON_ERROR_INVALID_ID);
    snprintf(text, sizeof text, "%.*s16777217", (int)strlen(hello) - 1, hello);
    OK(graviton_blob_id_parse(text, strlen(text), &other, &error));
    FAILS(graviton_block_key_parse(text, strlen(text), &parsed, &error), GRAVITON_ERROR_INVALID_ID);
    CHECK(memcmp(&key, &parsed, sizeof key) == 0);
}

static void configuration(const char *directory)
{
    graviton_config *config = NULL;
    graviton_store *store = NULL;
    char value[256];
    size_t length = 0;
    OK(graviton_config_new(&config, &error));
    OK(graviton_config_get(config, GRAVITON_LITERAL("GRAVITON_HASH"), value, sizeof value, &length, &error));
    CHECK(strcmp(value, "blake3") == 0 && length == 6);
    set(config, "GRAVITON_HASH", "sha256");
    set(config, "GRAVITON_FS_ROOT", inside(directory, "configured"));
    OK(graviton_config_get(config, GRAVITON_LITERAL("GRAVITON_HASH"), NULL, 0, &length, &error));
    CHECK(length == 6);
    OK(graviton_config_get(config, GRAVITON_LITERAL("GRAVITON_HASH"), value, 7, NULL, &error));
    INVALID(graviton_config_get(config, GRAVITON_LITERAL("GRAVITON_HASH"), value, 6, NULL, &error));
    FAILS(graviton_config_set(config, GRAVITON_LITERAL("GRAVITON_HUSH"), "x", 1, &error), GRAVITON_ERROR_CONFIG);
    FAILS(graviton_config_set(config, GRAVITON_LITERAL("GRAVITON_HASH"), "x", 1, &error), GRAVITON_ERROR_CONFIG);
    FAILS(graviton_config_get(config, GRAVITON_LITERAL("X"), NULL, 0, NULL, &error), GRAVITON_ERROR_CONFIG);
    /* A failed call changed nothing. */
    OK(graviton_config_get(config, GRAVITON_LITERAL("GRAVITON_HASH"), value, sizeof value, NULL, &error));
    CHECK(strcmp(value, "sha256") == 0);
    OK(graviton_config_adopt(config, 1, &error));
    OK(graviton_config_adopt(config, 0, &error));
    OK(graviton_config_take_over(config, 1, &error));
    OK(graviton_config_take_over(config, 0, &error));
    OK(graviton_config_set_put_window(config, 8 << 20, &error));
    OK(graviton_config_set_cancel(config, NULL, NULL, &error));

    FAILS(graviton_config_open_existing(config, &store, &error), GRAVITON_ERROR_NOT_FOUND);
    FAILS(graviton_config_open_read_only(config, &store, &error), GRAVITON_ERROR_NOT_FOUND);
    CHECK(store == NULL);
    OK(graviton_config_open(config, &store, &error));
    graviton_blob_id id = put(store, "abc", 3);
    CHECK(id.algo == GRAVITON_ALGO_SHA256 && id.size == 3);
    graviton_store_free(store);
    OK(graviton_config_open_existing(config, &store, &error));
    graviton_store_free(store);
    OK(graviton_config_open_read_only(config, &store, &error));
    expect_blob(store, &id, (const unsigned char *)"abc", 3);
    FAILS(graviton_store_put(store, (const unsigned char *)"x", 1, NULL, NULL, &error), GRAVITON_ERROR_FORBIDDEN);
    graviton_store_free(store);
    graviton_config_free(config);

    OK(graviton_config_for_directory(directory, strlen(directory), &config, &error));
    OK(graviton_config_get(config, GRAVITON_LITERAL("GRAVITON_FS_ROOT"), value, sizeof value, NULL, &error));
    CHECK(strcmp(value, directory) == 0);
    graviton_config_free(config);

    setenv("GRAVITON_HASH", "sha256", 1);
    OK(graviton_config_from_env(&config, &error));
    OK(graviton_config_get(config, GRAVITON_LITERAL("GRAVITON_HASH"), value, sizeof value, NULL, &error));
    CHECK(strcmp(value, "sha256") == 0);
    graviton_config_free(config);
    setenv("GRAVITON_HASH", "md5", 1);
    config = NULL;
    FAILS(graviton_config_from_env(&config, &error), GRAVITON_ERROR_CONFIG);
    CHECK(config == NULL);
    unsetenv("GRAVITON_HASH");
    graviton_config_free(NULL);
}

static int32_t count_up(void *userdata, uint64_t done, uint64_t total)
{
    uint64_t *last = userdata;
    CHECK(done > last[0] && (total == last[1]));
    last[0] = done;
    return 0;
}

struct source {
    const unsigned char *bytes;
    size_t length;
    size_t at;
};

static int32_t give(void *userdata, uint8_t *buffer, size_t capacity, size_t *count)
{
    struct source *source = userdata;
    size_t left = source->length - source->at;
    *count = left < capacity ? left : capacity;
    memcpy(buffer, source->bytes + source->at, *count);
    source->at += *count;
    return 0;
}

/* Every kind of put makes one blob, and reports its progress. */
static void puts_and_gets(const char *directory, graviton_store *store)
{
    uint64_t last[2] = { 0, LARGE };
    graviton_put_receipt receipt = GRAVITON_PUT_RECEIPT_INIT;
    graviton_put_options options = GRAVITON_PUT_OPTIONS_INIT;
    graviton_blob_id id, wrong;
    options.progress = count_up;
    options.progress_userdata = last;
    OK(graviton_store_put(store, large, LARGE, &options, &receipt, &error));
    id = receipt.id;
    CHECK(last[0] == LARGE && receipt.created == 1 && receipt.fresh_bytes == LARGE && receipt.blocks > 3 &&
          receipt.fresh_stored_bytes == LARGE);
    CHECK(receipt.fresh_blocks == receipt.blocks && id.size == LARGE);

    const char *path = inside(directory, "large");
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0);
    last[0] = 0;
    graviton_get_options get = GRAVITON_GET_OPTIONS_INIT;
    get.progress = count_up;
    get.progress_userdata = last;
    OK(graviton_store_get_fd(store, &id, fd, &get, &error));
    CHECK(last[0] == LARGE && lseek(fd, 0, SEEK_CUR) == (off_t)LARGE);

    options.expected = &id;
    last[0] = 0;
    CHECK(lseek(fd, 0, SEEK_SET) == 0);
    OK(graviton_store_put_fd(store, fd, &options, &receipt, &error));
    CHECK(last[0] == LARGE && receipt.created == 0 && memcmp(&receipt.id, &id, sizeof id) == 0);
    last[0] = 0;
    OK(graviton_store_put_path(store, path, strlen(path), &options, &receipt, &error));
    CHECK(last[0] == LARGE && receipt.created == 0);
    struct source source = { large, LARGE, 0 };
    last[0] = 0;
    last[1] = GRAVITON_SIZE_UNKNOWN;
    OK(graviton_store_put_callback(store, give, &source, &options, &receipt, &error));
    CHECK(last[0] == LARGE && receipt.created == 0 && memcmp(&receipt.id, &id, sizeof id) == 0);
    /* From the middle of the file, without a receipt. */
    CHECK(lseek(fd, (off_t)LARGE - 5, SEEK_SET) >= 0);
    OK(graviton_store_put_fd(store, fd, NULL, NULL, &error));
    close(fd);

    /* Wrong content stores nothing. */
    wrong = id;
    wrong.digest[0] ^= 1;
    options.expected = &wrong;
    options.progress = NULL;
    FAILS(graviton_store_put(store, large, LARGE, &options, &receipt, &error), GRAVITON_ERROR_DIGEST_MISMATCH);
    FAILS(graviton_store_put(store, large, LARGE - 1, &options, &receipt, &error), GRAVITON_ERROR_DIGEST_MISMATCH);
    FAILS(graviton_store_put_path(store, path, strlen(path), &options, NULL, &error), GRAVITON_ERROR_DIGEST_MISMATCH);
    CHECK(memcmp(&receipt.id, &id, sizeof id) == 0);
    int32_t exists = 7;
    OK(graviton_store_exists(store, &wrong, &exists, &error));
    CHECK(exists == 0);
    OK(graviton_store_exists(store, &id, &exists, &error));
    CHECK(exists == 1);

    expect_blob(store, &id, large, LARGE);
    unsigned char *room = malloc(LARGE + 100);
    size_t count = 0;
    last[0] = 0;
    last[1] = LARGE;
    OK(graviton_store_get(store, &id, room, LARGE + 100, &get, &count, &error));
    CHECK(count == LARGE && last[0] == LARGE);
    OK(graviton_store_read_range(store, &id, 1000000, room, 777777, &count, &error));
    CHECK(count == 777777 && memcmp(room, large + 1000000, count) == 0);
    OK(graviton_store_read_range(store, &id, LARGE - 3, room, 100, &count, &error));
    CHECK(count == 3 && memcmp(room, large + LARGE - 3, count) == 0);
    OK(graviton_store_read_range(store, &id, LARGE, room, 100, &count, &error));
    CHECK(count == 0);
    OK(graviton_store_read_range(store, &id, 5, NULL, 0, &count, &error));
    CHECK(count == 0);
    FAILS(graviton_store_read_range(store, &id, LARGE + 1, room, 1, &count, &error),
          GRAVITON_ERROR_RANGE_NOT_SATISFIABLE);
    INVALID(graviton_store_get(store, &id, room, LARGE - 1, NULL, &count, &error));

    graviton_blob_stat stat = GRAVITON_BLOB_STAT_INIT;
    OK(graviton_store_stat(store, &id, &stat, &error));
    CHECK(memcmp(&stat.id, &id, sizeof id) == 0 && stat.blocks == receipt.blocks && stat.created_at_ms > 1700000000000);
    CHECK(strncmp(stat.chunker, "fastcdc:", 8) == 0);
    FAILS(graviton_store_stat(store, &wrong, &stat, &error), GRAVITON_ERROR_NOT_FOUND);

    /* The manifest tiles the blob. A manifest from an offset inside a block begins with that block. */
    graviton_manifest *manifest = NULL;
    graviton_manifest_entry entry;
    int32_t found = 1;
    uint64_t at = 0, blocks = 0;
    OK(graviton_manifest_open(store, &id, 0, &manifest, &error));
    for (;;) {
        OK(graviton_manifest_next(manifest, &entry, &found, &error));
        if (!found) {
            break;
        }
        CHECK(entry.offset == at && entry.key.size > 0);
        at += entry.key.size;
        blocks++;
    }
    CHECK(at == LARGE && blocks == receipt.blocks);
    OK(graviton_manifest_next(manifest, &entry, &found, &error));
    CHECK(found == 0);
    graviton_manifest_free(manifest);
    OK(graviton_manifest_open(store, &id, LARGE - 1, &manifest, &error));
    OK(graviton_manifest_next(manifest, &entry, &found, &error));
    CHECK(found == 1 && entry.offset + entry.key.size == LARGE);
    graviton_manifest_free(manifest);
    OK(graviton_manifest_open(store, &id, LARGE, &manifest, &error));
    OK(graviton_manifest_next(manifest, &entry, &found, &error));
    CHECK(found == 0);
    graviton_manifest_free(manifest);
    graviton_manifest_free(NULL);

    /* Single blocks, put together. */
    size_t together = 0, block = 0;
    OK(graviton_manifest_open(store, &id, 0, &manifest, &error));
    for (;;) {
        OK(graviton_manifest_next(manifest, &entry, &found, &error));
        if (!found) {
            break;
        }
        INVALID(graviton_store_read_block(store, &entry.key, room, entry.key.size - 1, &block, &error));
        OK(graviton_store_read_block(store, &entry.key, room, LARGE, &block, &error));
        CHECK(block == entry.key.size && memcmp(room, large + entry.offset, block) == 0);
        together += block;
    }
    CHECK(together == LARGE);
    graviton_manifest_free(manifest);
    entry.key.digest[0] ^= 1;
    FAILS(graviton_store_read_block(store, &entry.key, room, LARGE, &block, &error), GRAVITON_ERROR_NOT_FOUND);
    free(room);
    FAILS(graviton_manifest_open(store, &wrong, 0, &manifest, &error), GRAVITON_ERROR_NOT_FOUND);
}

static void writers(graviton_store *store)
{
    graviton_writer *writer = NULL;
    graviton_put_receipt receipt = GRAVITON_PUT_RECEIPT_INIT;
    uint64_t size = 7;
    OK(graviton_writer_open(store, NULL, &writer, &error));
    OK(graviton_writer_size(writer, &size, &error));
    CHECK(size == 0);
    for (size_t at = 0; at < LARGE;) {
        size_t count = 1 + at / 3;
        count = count < LARGE - at ? count : LARGE - at;
        OK(graviton_writer_write(writer, large + at, count, &error));
        at += count;
        OK(graviton_writer_size(writer, &size, &error));
        CHECK(size == at);
    }
    OK(graviton_writer_write(writer, NULL, 0, &error));
    OK(graviton_writer_finish(writer, &receipt, &error));
    CHECK(receipt.id.size == LARGE && receipt.created == 0);
    /* Use after finish is detected and harmless. */
    INVALID(graviton_writer_write(writer, large, 1, &error));
    INVALID(graviton_writer_finish(writer, &receipt, &error));
    INVALID(graviton_writer_size(writer, &size, &error));
    graviton_writer_free(writer);

    /* Aborted: no blob exists. */
    graviton_blob_id id;
    int32_t exists = 1;
    OK(graviton_writer_open(store, NULL, &writer, &error));
    OK(graviton_writer_write(writer, (const unsigned char *)"gone", 4, &error));
    graviton_writer_free(writer);
    graviton_writer_free(NULL);
    OK(graviton_blob_id_of(GRAVITON_ALGO_BLAKE3, (const unsigned char *)"gone", 4, &id, &error));
    OK(graviton_store_exists(store, &id, &exists, &error));
    CHECK(exists == 0);

    /* More bytes than the expected id has: the error sticks. */
    OK(graviton_writer_open(store, &id, &writer, &error));
    FAILS(graviton_writer_write(writer, (const unsigned char *)"gone!", 5, &error), GRAVITON_ERROR_DIGEST_MISMATCH);
    FAILS(graviton_writer_write(writer, NULL, 0, &error), GRAVITON_ERROR_DIGEST_MISMATCH);
    FAILS(graviton_writer_size(writer, &size, &error), GRAVITON_ERROR_DIGEST_MISMATCH);
    FAILS(graviton_writer_finish(writer, NULL, &error), GRAVITON_ERROR_DIGEST_MISMATCH);
    FAILS(graviton_writer_finish(writer, NULL, &error), GRAVITON_ERROR_DIGEST_MISMATCH);
    graviton_writer_free(writer);
    OK(graviton_writer_open(store, &id, &writer, &error));
    OK(graviton_writer_write(writer, (const unsigned char *)"gone", 4, &error));
    OK(graviton_writer_finish(writer, NULL, &error));
    graviton_writer_free(writer);
    expect_blob(store, &id, (const unsigned char *)"gone", 4);
}

static void readers(graviton_store *store)
{
    graviton_blob_id id = put(store, large, LARGE), got, absent = id;
    graviton_reader *reader = NULL;
    unsigned char room[5000];
    size_t count = 0, at = 0;
    uint64_t position = 7, size = 0;
    absent.size++;
    FAILS(graviton_reader_open(store, &absent, &reader, &error), GRAVITON_ERROR_NOT_FOUND);
    CHECK(reader == NULL);
    OK(graviton_reader_open(store, &id, &reader, &error));
    OK(graviton_reader_size(reader, &size, &error));
    OK(graviton_reader_id(reader, &got, &error));
    CHECK(size == LARGE && memcmp(&got, &id, sizeof id) == 0);
    for (;;) {
        OK(graviton_reader_read(reader, room, sizeof room, &count, &error));
        if (count == 0) {
            break;
        }
        CHECK(count <= sizeof room && memcmp(room, large + at, count) == 0);
        at += count;
        OK(graviton_reader_tell(reader, &position, &error));
        CHECK(position == at);
    }
    CHECK(at == LARGE);
    OK(graviton_reader_seek(reader, -10, GRAVITON_SEEK_END, &position, &error));
    CHECK(position == LARGE - 10);
    OK(graviton_reader_seek(reader, -10, GRAVITON_SEEK_CUR, &position, &error));
    CHECK(position == LARGE - 20);
    OK(graviton_reader_seek(reader, 12345, GRAVITON_SEEK_SET, NULL, &error));
    OK(graviton_reader_read_at(reader, 54321, room, sizeof room, &count, &error));
    CHECK(count == sizeof room && memcmp(room, large + 54321, count) == 0);
    OK(graviton_reader_read(reader, room, 1, &count, &error));
    CHECK(count == 1 && room[0] == large[12345]);
    OK(graviton_reader_read_at(reader, LARGE - 1, room, sizeof room, &count, &error));
    CHECK(count == 1);
    OK(graviton_reader_read_at(reader, LARGE + 1000, room, sizeof room, &count, &error));
    CHECK(count == 0);
    OK(graviton_reader_read_at(reader, UINT64_MAX, room, sizeof room, &count, &error));
    CHECK(count == 0);
    OK(graviton_reader_read_at(reader, 0, NULL, 0, &count, &error));
    OK(graviton_reader_read(reader, NULL, 0, &count, &error));
    CHECK(count == 0);
    /* Wrong arguments do not stick. */
    INVALID(graviton_reader_seek(reader, -1, GRAVITON_SEEK_SET, &position, &error));
    INVALID(graviton_reader_seek(reader, INT64_MIN, GRAVITON_SEEK_END, &position, &error));
    INVALID(graviton_reader_seek(reader, 0, 3, &position, &error));
    OK(graviton_reader_tell(reader, &position, &error));
    CHECK(position == 12346);
    OK(graviton_reader_seek(reader, INT64_MAX, GRAVITON_SEEK_SET, &position, &error));
    OK(graviton_reader_read(reader, room, sizeof room, &count, &error));
    CHECK(count == 0);
    graviton_reader_free(reader);
    graviton_reader_free(NULL);
}

static int32_t count_calls(void *userdata, const graviton_gc_report *report, const graviton_blob_id *named)
{
    CHECK(report->struct_size == sizeof *report && (report->named_count == 0 || named[0].size == 9));
    *(int *)userdata += 1 + 1000 * (int)report->named_count;
    return 0;
}

static int32_t count_repacks(void *userdata, const graviton_repack_report *report)
{
    CHECK(report->struct_size == sizeof *report && report->damaged == 0);
    ++*(int *)userdata;
    return 0;
}

static int32_t count_copies(void *userdata, const graviton_copy_report *report, const graviton_blob_id *damaged)
{
    CHECK(damaged == NULL && report->complete == 1);
    ++*(int *)userdata;
    return 0;
}

static void lists_and_collection(const char *directory)
{
    graviton_store *store = open_store(inside(directory, "lists"));
    graviton_list *list = NULL;
    graviton_blob_stat stat = GRAVITON_BLOB_STAT_INIT;
    graviton_blob_id ids[600];
    int32_t found = 1, order = 0;
    size_t listed = 0;
    for (int index = 0; index < 600; index++) {
        char text[16];
        snprintf(text, sizeof text, "blob %04d", index);
        ids[index] = put(store, text, 9);
    }
    OK(graviton_list_open(store, NULL, &list, &error));
    graviton_blob_id last, middle = ids[0];
    for (;;) {
        OK(graviton_list_next(list, &stat, &found, &error));
        if (!found) {
            break;
        }
        if (listed > 0) {
            OK(graviton_blob_id_compare(&last, &stat.id, &order, &error));
            CHECK(order == -1);
        }
        if (listed == 299) {
            middle = stat.id;
        }
        last = stat.id;
        listed++;
    }
    CHECK(listed == 600);
    OK(graviton_list_next(list, &stat, &found, &error));
    CHECK(found == 0);
    graviton_list_free(list);
    OK(graviton_list_open(store, &middle, &list, &error));
    for (listed = 0;; listed++) {
        OK(graviton_list_next(list, &stat, &found, &error));
        if (!found) {
            break;
        }
    }
    CHECK(listed == 300);
    graviton_list_free(list);
    graviton_list_free(NULL);

    graviton_store_stats stats = GRAVITON_STORE_STATS_INIT;
    OK(graviton_store_stats_get(store, &stats, &error));
    CHECK(stats.blobs == 600 && stats.logical_bytes == 5400 && stats.dead_blobs == 0 && stats.dedup_ratio == 1.0);
    OK(graviton_store_delete(store, &ids[0], &error));
    FAILS(graviton_store_delete(store, &ids[0], &error), GRAVITON_ERROR_NOT_FOUND);
    FAILS(graviton_store_stat(store, &ids[0], &stat, &error), GRAVITON_ERROR_NOT_FOUND);
    OK(graviton_store_restore(store, &ids[0], &error));
    OK(graviton_store_restore(store, &ids[0], &error));
    OK(graviton_store_delete(store, &ids[0], &error));
    OK(graviton_store_delete(store, &ids[1], &error));

    graviton_gc_options options = GRAVITON_GC_OPTIONS_INIT;
    graviton_gc_report report = GRAVITON_GC_REPORT_INIT;
    int calls = 0;
    OK(graviton_store_gc(store, NULL, NULL, NULL, &report, &error));
    CHECK(report.complete == 1 && report.blobs == 0);
    options.grace_ms = GRAVITON_GC_NO_GRACE;
    options.dry_run = 1;
    OK(graviton_store_gc(store, &options, count_calls, &calls, &report, &error));
    CHECK(report.dry_run == 1 && report.blobs == 2 && report.blocks == 2 && report.named_count == 2 && calls == 2001);
    calls = 0;
    options.dry_run = 0;
    OK(graviton_store_gc(store, &options, count_calls, &calls, &report, &error));
    CHECK(report.complete == 1 && report.blobs == 2 && report.blocks == 2 && report.bytes == 18 && calls > 1);
    FAILS(graviton_store_restore(store, &ids[1], &error), GRAVITON_ERROR_NOT_FOUND);
    OK(graviton_store_gc(store, &options, NULL, NULL, NULL, &error));
    /* Another grace, and limits that are not reached. */
    options.grace_ms = 1;
    options.max_time_ms = 600000;
    options.max_blocks = options.max_bytes = options.blocks_per_second = 1000000;
    OK(graviton_store_gc(store, &options, NULL, NULL, &report, &error));
    options.grace_ms = -2;
    INVALID(graviton_store_gc(store, &options, NULL, NULL, &report, &error));
    options.grace_ms = 0;
    options.dry_run = 2;
    INVALID(graviton_store_gc(store, &options, NULL, NULL, &report, &error));

    /* Into packs, and out of them. */
    graviton_repack_report repacked = GRAVITON_REPACK_REPORT_INIT;
    calls = 0;
    OK(graviton_store_repack(store, GRAVITON_LITERAL("packs"), count_repacks, &calls, &repacked, &error));
    CHECK(repacked.complete == 1 && repacked.blocks == 598 && repacked.remaining == 0 && calls > 1);
    CHECK(repacked.present == 0 && repacked.failure[0] == 0);
    OK(graviton_store_repack(store, GRAVITON_LITERAL("packs"), NULL, NULL, &repacked, &error));
    CHECK(repacked.complete == 1 && repacked.blocks == 0 && repacked.present == 598);
    OK(graviton_store_repack(store, GRAVITON_LITERAL("files"), NULL, NULL, &repacked, &error));
    CHECK(repacked.complete == 1 && repacked.blocks == 598);
    INVALID(graviton_store_repack(store, GRAVITON_LITERAL("pack"), NULL, NULL, &repacked, &error));

    /* Backup, and a copy of some and of all. */
    const char *backup = inside(directory, "backup.db");
    OK(graviton_store_backup(store, backup, strlen(backup), &error));
    CHECK(access(backup, R_OK) == 0);
    graviton_store *other = open_store(inside(directory, "copied"));
    graviton_copy_options some_ids = GRAVITON_COPY_OPTIONS_INIT;
    graviton_copy_report copied = GRAVITON_COPY_REPORT_INIT;
    some_ids.ids = &ids[10];
    some_ids.id_count = 5;
    OK(graviton_store_copy_from(other, store, &some_ids, NULL, NULL, &copied, &error));
    CHECK(copied.blobs == 5 && copied.present == 0 && copied.blocks == 5 && copied.bytes == 45 && copied.complete == 1);
    OK(graviton_store_copy_from(other, store, NULL, NULL, NULL, &copied, &error));
    CHECK(copied.blobs == 593 && copied.present == 5 && copied.damaged_count == 0 && copied.complete == 1);
    /* An empty list is not the same as no list. */
    graviton_verify_options verify_none = GRAVITON_VERIFY_OPTIONS_INIT;
    graviton_verify_report verified = GRAVITON_VERIFY_REPORT_INIT;
    graviton_store *nothing = open_store(inside(directory, "nothing"));
    some_ids.id_count = 0;
    calls = 0;
    OK(graviton_store_copy_from(nothing, store, &some_ids, count_copies, &calls, &copied, &error));
    CHECK(copied.blobs == 0 && copied.present == 0 && copied.blocks == 0 && copied.complete == 1 && calls == 1);
    OK(graviton_store_stats_get(nothing, &stats, &error));
    CHECK(stats.blobs == 0 && stats.packs == 0 && stats.pack_live_bytes == 0 && stats.unknown_pack_bytes == 0);
    graviton_store_free(nothing);
    verify_none.ids = ids;
    OK(graviton_store_verify(store, &verify_none, NULL, NULL, &verified, &error));
    CHECK(verified.blobs == 0 && verified.blocks == 0 && verified.complete == 1 && verified.clean == 1);
    some_ids.ids = NULL;
    some_ids.id_count = 3;
    INVALID(graviton_store_copy_from(other, store, &some_ids, NULL, NULL, &copied, &error));
    verify_none.ids = NULL;
    verify_none.id_count = 3;
    INVALID(graviton_store_verify(store, &verify_none, NULL, NULL, &verified, &error));
    graviton_repair_report repaired = GRAVITON_REPAIR_REPORT_INIT;
    OK(graviton_store_repair_from(other, store, NULL, NULL, &repaired, &error));
    CHECK(repaired.checked == 598 && repaired.repaired == 0 && repaired.lost_count == 0 && repaired.complete == 1);
    graviton_verify_options deep = GRAVITON_VERIFY_OPTIONS_INIT;
    deep.deep = 1;
    OK(graviton_store_verify(other, &deep, NULL, NULL, &verified, &error));
    CHECK(verified.clean == 1 && verified.complete == 1 && verified.blobs == 598 && verified.cursor[0] == 0);
    CHECK(verified.bytes == 598 * 9);
    graviton_verify_options rebuild = GRAVITON_VERIFY_OPTIONS_INIT;
    rebuild.rebuild = 1;
    OK(graviton_store_verify(other, &rebuild, NULL, NULL, &verified, &error));
    CHECK(verified.clean == 1 && verified.rebuilt == 0 && verified.rebuilt_bytes == 0 && verified.unusable == 0);
    rebuild.rebuild = 2;
    INVALID(graviton_store_verify(other, &rebuild, NULL, NULL, &verified, &error));

    /* Closed, twice; freed in any order. */
    OK(graviton_list_open(store, NULL, &list, &error));
    OK(graviton_store_close(store, &error));
    OK(graviton_store_close(store, &error));
    FAILS(graviton_store_stat(store, &ids[20], &stat, &error), GRAVITON_ERROR_CLOSED);
    FAILS(graviton_list_next(list, &stat, &found, &error), GRAVITON_ERROR_CLOSED);
    graviton_store_free(store);
    graviton_list_free(list);
    graviton_store_free(other);
    graviton_store_free(NULL);
}

int main(int count, char **arguments)
{
    CHECK(count == 2);
    const char *directory = arguments[1];
    large = some(LARGE, 1);
    versions_and_tables();
    errors();
    ids();
    configuration(directory);
    graviton_store *store = open_store(inside(directory, "store"));
    puts_and_gets(directory, store);
    writers(store);
    readers(store);
    /* The empty blob. */
    graviton_blob_id empty = put(store, NULL, 0);
    CHECK(empty.size == 0);
    expect_blob(store, &empty, NULL, 0);
    OK(graviton_store_get(store, &empty, NULL, 0, NULL, NULL, &error));
    OK(graviton_store_close(store, &error));
    graviton_store_free(store);
    lists_and_collection(directory);
    free(large);
    return 0;
}
