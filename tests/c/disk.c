/* A full disk and a read-only root. tests/c/run mounts them.
 *
 * usage: disk full DIRECTORY | disk prepare DIRECTORY | disk read-only DIRECTORY */
#include <fcntl.h>
#include <unistd.h>

#include "check.h"

#define LARGE ((size_t)24 * 1000 * 1000)

static unsigned char *large;

static void full(const char *directory)
{
    char fill[4096];
    unsigned char byte[65536] = { 0 };
    graviton_store *store = open_store(inside(directory, "store"));
    graviton_writer *writer = NULL;
    graviton_put_receipt receipt = GRAVITON_PUT_RECEIPT_INIT;
    graviton_blob_id before = put(store, large, 100000);
    graviton_status status = GRAVITON_OK;
    CHECK(graviton_store_put(store, large, LARGE, NULL, &receipt, &error) == GRAVITON_ERROR_NO_SPACE);
    CHECK(graviton_error_errno(error) == ENOSPC && receipt.id.size == 0);
    graviton_error_free(error);
    error = NULL;
    /* A writer fails when it writes or when it finishes, and the error sticks. */
    OK(graviton_writer_open(store, NULL, &writer, &error));
    for (size_t at = 0; at < LARGE && status == GRAVITON_OK; at += 1000000) {
        status = graviton_writer_write(writer, large + at, 1000000, &error);
    }
    if (status == GRAVITON_OK) {
        status = graviton_writer_finish(writer, &receipt, &error);
    }
    CHECK(status == GRAVITON_ERROR_NO_SPACE);
    graviton_error_free(error);
    error = NULL;
    FAILS(graviton_writer_finish(writer, &receipt, &error), GRAVITON_ERROR_NO_SPACE);
    graviton_writer_free(writer);
    /* No free byte is left, but reading continues. */
    snprintf(fill, sizeof fill, "%s/fill", directory);
    int fd = open(fill, O_WRONLY | O_CREAT, 0600);
    /* Writes that were running when the writer failed may free their space a moment later. */
    for (int quiet = 0; quiet < 10; quiet++) {
        while (write(fd, byte, sizeof byte) > 0 || write(fd, byte, 1) > 0) {
            quiet = 0;
        }
        usleep(50000);
    }
    close(fd);
    expect_blob(store, &before, large, 100000);
    FAILS(graviton_store_put(store, large + 7, 200000, NULL, NULL, &error), GRAVITON_ERROR_NO_SPACE);
    /* With some space, writing works again. */
    CHECK(unlink(fill) == 0);
    put(store, large + 7, 200000);
    expect_blob(store, &before, large, 100000);
    graviton_store_free(store);
}

static void read_only(const char *directory)
{
    char place[2000], path[2100];
    graviton_store *store = NULL;
    graviton_config *config = NULL;
    graviton_blob_id id;
    snprintf(place, sizeof place, "%s/store", directory);
    OK(graviton_blob_id_of(GRAVITON_ALGO_BLAKE3, large, 100000, &id, &error));
    OK(graviton_config_for_directory(place, strlen(place), &config, &error));
    OK(graviton_config_open_read_only(config, &store, &error));
    expect_blob(store, &id, large, 100000);
    FAILS(graviton_store_put(store, large, 5, NULL, NULL, &error), GRAVITON_ERROR_FORBIDDEN);
    FAILS(graviton_store_delete(store, &id, &error), GRAVITON_ERROR_FORBIDDEN);
    graviton_store_free(store);
    graviton_config_free(config);
    store = NULL;
    snprintf(path, sizeof path, "%s/another", directory);
    FAILS(graviton_store_open(path, strlen(path), &store, &error), GRAVITON_ERROR_FORBIDDEN);
    CHECK(store == NULL);
}

int main(int count, char **arguments)
{
    CHECK(count == 3);
    large = some(LARGE, 8);
    if (strcmp(arguments[1], "full") == 0) {
        full(arguments[2]);
    } else if (strcmp(arguments[1], "read-only") == 0) {
        read_only(arguments[2]);
    } else {
        graviton_store *store = open_store(inside(arguments[2], "store"));
        put(store, large, 100000);
        graviton_store_free(store);
    }
    free(large);
    return 0;
}
