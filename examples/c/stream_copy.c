/* Copies a file into a store and back out, piece by piece, and prints its progress:
 * stream_copy DIRECTORY SOURCE TARGET
 *
 * Writers and readers accept pieces of any size, so the program never holds the whole file. */
#include <graviton.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static graviton_error *error;

static void fail(const char *what)
{
    fprintf(stderr, "\nstream_copy: %s\n", what);
    exit(1);
}

static void check(graviton_status status)
{
    if (status != GRAVITON_OK) {
        fail(graviton_error_message(error));
    }
}

static void say(const char *what, uint64_t bytes, uint64_t whole)
{
    fprintf(stderr, "\r%s %3d %%", what, whole == 0 ? 100 : (int)(bytes * 100 / whole));
}

static graviton_blob_id copy_in(const graviton_store *store, FILE *file, uint8_t *buffer, size_t capacity)
{
    graviton_writer *writer = NULL;
    graviton_put_receipt put = GRAVITON_PUT_RECEIPT_INIT;
    uint64_t done = 0;
    size_t count;
    if (fseek(file, 0, SEEK_END) != 0) {
        fail("the source is no plain file");
    }
    const uint64_t whole = (uint64_t)ftell(file);
    rewind(file);

    check(graviton_writer_open(store, NULL, &writer, &error));
    while ((count = fread(buffer, 1, capacity, file)) > 0) {
        check(graviton_writer_write(writer, buffer, count, &error));
        say("in ", done += count, whole);
    }
    if (ferror(file)) {
        fail("cannot read the source");         /* nothing is stored, because the writer is not finished */
    }
    check(graviton_writer_finish(writer, &put, &error));
    graviton_writer_free(writer);
    fprintf(stderr, "\n%llu of %llu blocks were new\n", (unsigned long long)put.fresh_blocks, (unsigned long long)put.blocks);
    return put.id;
}

static void copy_out(const graviton_store *store, const graviton_blob_id *id, FILE *file, uint8_t *buffer, size_t capacity)
{
    graviton_reader *reader = NULL;
    uint64_t done = 0;
    size_t count = 0;
    check(graviton_reader_open(store, id, &reader, &error));
    do {
        check(graviton_reader_read(reader, buffer, capacity, &count, &error));
        if (fwrite(buffer, 1, count, file) != count) {
            fail("cannot write the target");
        }
        say("out", done += count, id->size);
    } while (count > 0);
    graviton_reader_free(reader);
    fprintf(stderr, "\n");
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: stream_copy DIRECTORY SOURCE TARGET\n");
        return 2;
    }
    FILE *source = fopen(argv[2], "rb");
    FILE *target = fopen(argv[3], "wb");
    const size_t capacity = graviton_recommended_buffer_size();
    uint8_t *buffer = malloc(capacity);
    graviton_store *store = NULL;
    if (source == NULL || target == NULL || buffer == NULL) {
        fail("cannot open the source or the target");
    }
    check(graviton_store_open(argv[1], strlen(argv[1]), &store, &error));
    const graviton_blob_id id = copy_in(store, source, buffer, capacity);
    copy_out(store, &id, target, buffer, capacity);
    graviton_store_free(store);
    free(buffer);
    fclose(source);
    if (fclose(target) != 0) {
        fail("cannot write the target");
    }
    return 0;
}
