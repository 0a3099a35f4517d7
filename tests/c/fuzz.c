/* Random input from a seed: the text of ids, configurations, and streams cut into writes.
 *
 * usage: fuzz DIRECTORY id|config|writer SEED COUNT
 *
 * It runs COUNT cases from SEED on, and prints the seed of a case that fails. */
#include <signal.h>

#include "check.h"

static unsigned long long state;

static unsigned long long number(unsigned long long below)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (state * 2685821657736338717ull >> 11) % below;
}

static size_t mutate(char *text, size_t length, size_t capacity)
{
    static const char letters[] = "0123456789abcdefABCDEFblake3sha256::--+ \n\x00\xff/.";
    for (unsigned long long changes = number(4); changes > 0; changes--) {
        size_t at = length ? number(length) : 0;
        char letter = number(2) ? letters[number(sizeof letters)] : (char)number(256);
        switch (number(4)) {
        case 0:
            if (length > 0) {
                text[at] = letter;
            }
            break;
        case 1:
            if (length < capacity) {
                memmove(text + at + 1, text + at, length - at);
                text[at] = letter;
                length++;
            }
            break;
        case 2:
            if (length > 0) {
                memmove(text + at, text + at + 1, length - at - 1);
                length--;
            }
            break;
        default:
            length = number(length + 1);
        }
    }
    return length;
}

/* Accepted text is the canonical text of its id, except for "sha-256:", which is read as "sha256:". */
static size_t without_hyphen(char *text, size_t length)
{
    if (length > 7 && memcmp(text, "sha-256", 7) == 0) {
        memmove(text + 3, text + 4, length - 4);
        length--;
    }
    return length;
}

static void fuzz_id(void)
{
    graviton_blob_id id;
    char text[200], again[GRAVITON_BLOB_ID_TEXT_MAX];
    size_t length = 0;
    memset(&id, 0, sizeof id);
    id.algo = 1 + (int32_t)number(2);
    id.size = number(4) == 0 ? INT64_MAX - number(2) : number(1ull << number(60));
    noise(id.digest, sizeof id.digest, number(1000000));
    OK(graviton_blob_id_format(&id, text, sizeof text, &length, &error));
    length = mutate(text, length, sizeof text);
    char *exact = malloc(length ? length : 1);
    memcpy(exact, text, length);
    graviton_status status = graviton_blob_id_parse(exact, length, &id, &error);
    if (status == GRAVITON_OK) {
        size_t count = 0;
        OK(graviton_blob_id_format(&id, again, sizeof again, &count, &error));
        length = without_hyphen(exact, length);
        CHECK(count == length && memcmp(again, exact, count) == 0);
    } else {
        CHECK(status == GRAVITON_ERROR_INVALID_ID && graviton_error_message(error)[0] != 0);
        graviton_error_free(error);
        error = NULL;
    }
    free(exact);
}

/* An accepted value comes back as it was set, or as an ellipsis. */
static void fuzz_config(void)
{
    static const char *const values[] = { "fs", "s3", "minio", "blake3", "sha256", "fixed:4096", "fastcdc:64:256:1024",
                                          "delimiter:0a:65536", "full", "relaxed", "true", "0", "1h", "30m", "cas/blocks",
                                          "sqlite:/tmp/x.db", "postgres://u:p@h:5432/d", "jdbc:postgresql://h/d", "",
                                          "http://localhost:9000", "us-east-1", "99999999999999999999h" };
    graviton_config *config = NULL;
    OK(graviton_config_new(&config, &error));
    for (unsigned long long sets = number(6); sets > 0; sets--) {
        char name[200], value[200], got[400];
        const char *known = graviton_setting_name(number(graviton_setting_count()));
        const char *possible = values[number(sizeof values / sizeof *values)];
        size_t name_length = strlen(known), value_length = strlen(possible), got_length = 0;
        memcpy(name, known, name_length);
        memcpy(value, possible, value_length);
        if (number(8) == 0) {
            name_length = mutate(name, name_length, sizeof name);
        }
        value_length = mutate(value, value_length, sizeof value);
        char *exact_name = malloc(name_length + 1), *exact_value = malloc(value_length ? value_length : 1);
        memcpy(exact_name, name, name_length);
        memcpy(exact_value, value, value_length);
        graviton_status status = graviton_config_set(config, exact_name, name_length, exact_value, value_length, &error);
        if (status == GRAVITON_OK) {
            OK(graviton_config_get(config, exact_name, name_length, got, sizeof got, &got_length, &error));
            CHECK(strcmp(got, "\xe2\x80\xa6") == 0 || (got_length == value_length && memcmp(got, value, got_length) == 0));
        } else {
            CHECK(status == GRAVITON_ERROR_CONFIG || status == GRAVITON_ERROR_INVALID_ARGUMENT);
            CHECK(graviton_error_message(error)[0] != 0);
            graviton_error_free(error);
            error = NULL;
        }
        free(exact_name);
        free(exact_value);
    }
    graviton_config_free(config);
}

/* A stream makes the same blob for any division into writes. */
static void fuzz_writer(const char *directory)
{
    static const char *const chunkers[] = { "fastcdc:64:256:1024", "fixed:4096", "delimiter:0a:65536",
                                            "fastcdc:65536:262144:1048576" };
    static graviton_store *stores[4];
    size_t which = number(4);
    if (directory == NULL) {
        for (which = 0; which < 4; which++) {
            graviton_store_free(stores[which]);
        }
        return;
    }
    if (stores[which] == NULL) {
        graviton_config *config = NULL;
        char name[16];
        snprintf(name, sizeof name, "store-%zu", which);
        OK(graviton_config_new(&config, &error));
        set(config, "GRAVITON_FS_ROOT", inside(directory, name));
        set(config, "GRAVITON_CHUNKER", chunkers[which]);
        set(config, "GRAVITON_DURABILITY", "relaxed");
        OK(graviton_config_open(config, &stores[which], &error));
        graviton_config_free(config);
    }
    size_t length = number(1ull << number(which == 0 ? 16 : 21)), at = 0;
    unsigned char *bytes = some(length, number(1000000));
    /* Repeated runs, so that blocks repeat. */
    for (size_t copies = number(4); copies > 0 && length > 2; copies--) {
        size_t run = number(length / 2), from = number(length - run), to = number(length - run);
        memmove(bytes + to, bytes + from, run);
    }
    graviton_writer *writer = NULL;
    graviton_put_receipt receipt = GRAVITON_PUT_RECEIPT_INIT;
    graviton_blob_id id;
    uint64_t size = 0;
    OK(graviton_blob_id_of(GRAVITON_ALGO_BLAKE3, bytes, length, &id, &error));
    OK(graviton_writer_open(stores[which], number(2) ? &id : NULL, &writer, &error));
    unsigned long long scale = 1 + number(21);
    while (at < length) {
        size_t count = number(1ull << scale);
        count = count < length - at ? count : length - at;
        /* Of exactly this length, and freed as soon as it was taken. */
        unsigned char *piece = malloc(count ? count : 1);
        memcpy(piece, bytes + at, count);
        OK(graviton_writer_write(writer, piece, count, &error));
        free(piece);
        at += count;
        OK(graviton_writer_size(writer, &size, &error));
        CHECK(size == at);
        if (number(200) == 0) {
            /* Abandoned half-way. */
            graviton_writer_free(writer);
            free(bytes);
            return;
        }
    }
    OK(graviton_writer_finish(writer, &receipt, &error));
    graviton_writer_free(writer);
    CHECK(memcmp(&receipt.id, &id, sizeof id) == 0);
    expect_blob(stores[which], &id, bytes, length);
    free(bytes);
}

static unsigned long long current;

/* `failed` aborts. */
static void say_seed(int signal)
{
    (void)signal;
    fprintf(stderr, "the case with seed %llu failed\n", current);
}

int main(int count, char **arguments)
{
    CHECK(count == 5);
    unsigned long long seed = strtoull(arguments[3], NULL, 10), cases = strtoull(arguments[4], NULL, 10);
    char kind = arguments[2][0];
    signal(SIGABRT, say_seed);
    for (current = seed; current < seed + cases; current++) {
        state = current * 0x9e3779b97f4a7c15ull + 1;
        number(2);
        if (kind == 'i') {
            fuzz_id();
        } else if (kind == 'c') {
            fuzz_config();
        } else {
            fuzz_writer(arguments[1]);
        }
    }
    fuzz_writer(NULL);
    return 0;
}
