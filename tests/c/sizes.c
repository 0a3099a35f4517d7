/* Every length from 0, in memory of exactly that length, so that a checker detects an access one byte past
 * the end. */
#include "check.h"

static void blobs(graviton_store *store, size_t length)
{
    unsigned char *bytes = some(length, length + 10), *room = malloc(length ? length : 1);
    size_t count = 0;
    graviton_reader *reader = NULL;
    graviton_writer *writer = NULL;
    graviton_put_receipt receipt = GRAVITON_PUT_RECEIPT_INIT;
    graviton_blob_id id, of;
    OK(graviton_writer_open(store, NULL, &writer, &error));
    OK(graviton_writer_write(writer, bytes, length, &error));
    OK(graviton_writer_finish(writer, &receipt, &error));
    graviton_writer_free(writer);
    id = put(store, bytes, length);
    OK(graviton_blob_id_of(GRAVITON_ALGO_BLAKE3, bytes, length, &of, &error));
    CHECK(memcmp(&id, &of, sizeof id) == 0 && memcmp(&id, &receipt.id, sizeof id) == 0);
    expect_blob(store, &id, bytes, length);
    OK(graviton_reader_open(store, &id, &reader, &error));
    OK(graviton_reader_read_at(reader, 0, room, length, &count, &error));
    CHECK(count == length && memcmp(room, bytes, length) == 0);
    for (size_t at = 0; at < length; at += count) {
        OK(graviton_reader_read(reader, room + at, length - at, &count, &error));
        CHECK(count > 0);
    }
    OK(graviton_reader_read(reader, room, length, &count, &error));
    CHECK(count == 0 && memcmp(room, bytes, length) == 0);
    OK(graviton_store_read_range(store, &id, length / 2, room, length - length / 2, &count, &error));
    CHECK(count == length - length / 2 && memcmp(room, bytes + length / 2, count) == 0);
    graviton_reader_free(reader);
    free(room);
    free(bytes);
}

int main(int count, char **arguments)
{
    CHECK(count == 2);
    const char *most = getenv("GRAVITON_C_SIZES");
    graviton_store *store = open_store(arguments[1]);
    for (size_t length = 0; length <= (most ? (size_t)atoi(most) : 260); length++) {
        blobs(store, length);
    }
    static const size_t edges[] = { 4095, 4096, 4097, 16383, 16384, 16385, 65535, 65536, 65537, 262144, 524287, 524288, 524289,
                                    1048575, 1048576, 1048577, 4194303, 4194304, 4194305 };
    for (size_t index = 0; index < sizeof edges / sizeof *edges; index++) {
        blobs(store, edges[index]);
    }

    /* Text: parsed without a byte after it, and formatted into space of every size. */
    graviton_blob_id id = put(store, "text", 4), back;
    char text[GRAVITON_BLOB_ID_TEXT_MAX];
    size_t length = 0;
    OK(graviton_blob_id_format(&id, text, sizeof text, &length, &error));
    for (size_t size = 0; size <= length + 2; size++) {
        char *exact = malloc(size ? size : 1);
        if (size == 0 || size > length) {
            OK(graviton_blob_id_format(&id, exact, size, NULL, &error));
            CHECK(size == 0 || strcmp(exact, text) == 0);
        } else {
            INVALID(graviton_blob_id_format(&id, exact, size, NULL, &error));
        }
        memcpy(exact, text, size < length ? size : length);
        if (size == length) {
            OK(graviton_blob_id_parse(exact, size, &back, &error));
            CHECK(memcmp(&id, &back, sizeof id) == 0);
        } else if (size < length) {
            FAILS(graviton_blob_id_parse(exact, size, &back, &error), GRAVITON_ERROR_INVALID_ID);
        }
        free(exact);
    }
    graviton_store_free(store);
    return 0;
}
