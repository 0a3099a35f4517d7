/* After a fork: the parent's handles are refused in the child, freeing them is harmless, and a child's own
 * store works. */
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#if defined(__has_feature)
#define GRAVITON_TEST_ADDRESS_SANITIZER __has_feature(address_sanitizer)
#else
#define GRAVITON_TEST_ADDRESS_SANITIZER 0
#endif

int main(int count, char **arguments)
{
    CHECK(count == 2);
    const char *directory = arguments[1];
    unsigned char *bytes = some(700000, 4), room[100];
    char ours[4096];
    snprintf(ours, sizeof ours, "%s/ours", directory);
    graviton_store *store = open_store(ours), *other = NULL;
    graviton_blob_id id = put(store, bytes, 700000);
    graviton_reader *reader = NULL;
    graviton_writer *writer = NULL;
    graviton_list *list = NULL;
    graviton_manifest *manifest = NULL;
    graviton_config *config = NULL;
    size_t read = 0;
    OK(graviton_reader_open(store, &id, &reader, &error));
    OK(graviton_reader_read(reader, room, sizeof room, &read, &error));
    OK(graviton_writer_open(store, NULL, &writer, &error));
    OK(graviton_writer_write(writer, bytes, 100, &error));
    OK(graviton_list_open(store, NULL, &list, &error));
    OK(graviton_manifest_open(store, &id, 0, &manifest, &error));
    OK(graviton_config_for_directory(ours, strlen(ours), &config, &error));

    /* The allocator of clang's sanitizer leaves the child with the locks of other threads (before LLVM
     * 17). */
    if (GRAVITON_TEST_ADDRESS_SANITIZER)
        sleep(1);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        graviton_blob_stat stat = GRAVITON_BLOB_STAT_INIT;
        graviton_put_receipt receipt = GRAVITON_PUT_RECEIPT_INIT;
        graviton_manifest_entry entry;
        uint64_t size = 0;
        int32_t found = 0;
        alarm(60);
        FAILS(graviton_store_stat(store, &id, &stat, &error), GRAVITON_ERROR_FORKED);
        FAILS(graviton_store_put(store, bytes, 5, NULL, NULL, &error), GRAVITON_ERROR_FORKED);
        FAILS(graviton_store_put_path(store, "/dev/null", 9, NULL, NULL, &error), GRAVITON_ERROR_FORKED);
        FAILS(graviton_store_close(store, &error), GRAVITON_ERROR_FORKED);
        FAILS(graviton_store_with_cancel(store, NULL, NULL, &other, &error), GRAVITON_ERROR_FORKED);
        FAILS(graviton_reader_read(reader, room, sizeof room, &read, &error), GRAVITON_ERROR_FORKED);
        FAILS(graviton_reader_read_at(reader, 0, room, sizeof room, &read, &error), GRAVITON_ERROR_FORKED);
        FAILS(graviton_reader_size(reader, &size, &error), GRAVITON_ERROR_FORKED);
        FAILS(graviton_writer_write(writer, bytes, 5, &error), GRAVITON_ERROR_FORKED);
        FAILS(graviton_writer_finish(writer, &receipt, &error), GRAVITON_ERROR_FORKED);
        FAILS(graviton_list_next(list, &stat, &found, &error), GRAVITON_ERROR_FORKED);
        FAILS(graviton_manifest_next(manifest, &entry, &found, &error), GRAVITON_ERROR_FORKED);
        /* The same file that the parent has open; the configuration itself works. */
        FAILS(graviton_config_open(config, &other, &error), GRAVITON_ERROR_FORKED);
        /* Freed in the child, without effect on the parent's handles. */
        graviton_store_free(store);
        graviton_reader_free(reader);
        graviton_writer_free(writer);
        graviton_list_free(list);
        graviton_manifest_free(manifest);
        graviton_config_free(config);
        store = open_store(inside(directory, "theirs"));
        id = put(store, bytes, 700000);
        expect_blob(store, &id, bytes, 700000);
        OK(graviton_store_close(store, &error));
        graviton_store_free(store);
        free(bytes);
        _exit(0);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);

    /* The parent continues at its position. */
    size_t at = read;
    OK(graviton_reader_read(reader, room, sizeof room, &read, &error));
    CHECK(read > 0 && memcmp(room, bytes + at, read) == 0);
    graviton_put_receipt receipt = GRAVITON_PUT_RECEIPT_INIT;
    OK(graviton_writer_finish(writer, &receipt, &error));
    CHECK(receipt.id.size == 100);
    OK(graviton_store_close(store, &error));
    graviton_config_free(config);
    graviton_manifest_free(manifest);
    graviton_list_free(list);
    graviton_writer_free(writer);
    graviton_reader_free(reader);
    graviton_store_free(store);
    store = open_store(inside(directory, "theirs"));
    expect_blob(store, &id, bytes, 700000);
    graviton_store_free(store);
    free(bytes);
    return 0;
}
