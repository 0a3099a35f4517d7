/* gravcp: copies files into a store and blobs out of it. See `gravcp --help`. */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <fcntl.h>
#include <graviton.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DONE = 0, FAILED = 1, USAGE = 2, NOT_FOUND = 3, DAMAGED = 4 };

static const char help[] =
    "Copies files into a Graviton store, and blobs out of it.\n"
    "\n"
    "usage: gravcp STORE FILE...          prints the id and the name of each; - is standard input\n"
    "       gravcp --get STORE ID [FILE]  to a file, or to standard output\n"
    "       gravcp --help\n"
    "\n"
    "STORE is a directory, which is created if it does not exist. FILE appears only when it is complete.\n"
    "Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 corrupt or missing data.\n";

/* Prints why a call failed, and returns the exit code. Takes the error. */
static int report(const char *what, graviton_error *error)
{
    const graviton_status code = graviton_error_code(error);
    const char *advice = graviton_error_advice(error);
    fprintf(stderr, "gravcp: %s: %s%s%s\n", what, graviton_error_message(error), *advice ? "; " : "", advice);
    graviton_error_free(error);
    switch (code) {
    case GRAVITON_ERROR_NOT_FOUND:
        return NOT_FOUND;
    case GRAVITON_ERROR_CORRUPT_BLOCK:
    case GRAVITON_ERROR_MISSING_BLOCK:
    case GRAVITON_ERROR_CORRUPT_DATABASE:
        return DAMAGED;
    default:
        return FAILED;
    }
}

static int report_errno(const char *what)
{
    fprintf(stderr, "gravcp: %s: %s\n", what, strerror(errno));
    return FAILED;
}

static int put(const graviton_store *store, const char *name)
{
    graviton_error *error = NULL;
    graviton_put_receipt receipt = GRAVITON_PUT_RECEIPT_INIT;
    char id[GRAVITON_BLOB_ID_TEXT_MAX];
    const graviton_status status = strcmp(name, "-") == 0
        ? graviton_store_put_fd(store, STDIN_FILENO, NULL, &receipt, &error)
        : graviton_store_put_path(store, name, strlen(name), NULL, &receipt, &error);
    if (status != GRAVITON_OK || graviton_blob_id_format(&receipt.id, id, sizeof(id), NULL, &error) != GRAVITON_OK) {
        return report(name, error);
    }
    return printf("%s  %s\n", id, name) < 0 || fflush(stdout) != 0 ? report_errno("standard output") : DONE;
}

/* Writes to a file beside the target, which gets the target's name when it is complete. */
static int get_to_file(const graviton_store *store, const graviton_blob_id *id, const char *name)
{
    graviton_error *error = NULL;
    char *partial = malloc(strlen(name) + sizeof(".partial"));
    if (partial == NULL) {
        return report_errno(name);
    }
    strcat(strcpy(partial, name), ".partial");
    int result = DONE;
    const int fd = open(partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        result = report_errno(partial);
    } else {
        if (graviton_store_get_fd(store, id, fd, NULL, &error) != GRAVITON_OK) {
            result = report(name, error);
        }
        if (close(fd) != 0 && result == DONE) {
            result = report_errno(partial);
        }
        if (result == DONE && rename(partial, name) != 0) {
            result = report_errno(name);
        }
        if (result != DONE) {
            unlink(partial);
        }
    }
    free(partial);
    return result;
}

static int get(const graviton_store *store, const char *text, const char *name)
{
    graviton_error *error = NULL;
    graviton_blob_id id;
    if (graviton_blob_id_parse(text, strlen(text), &id, &error) != GRAVITON_OK) {
        return report(text, error);
    }
    if (name != NULL) {
        return get_to_file(store, &id, name);
    }
    return graviton_store_get_fd(store, &id, STDOUT_FILENO, NULL, &error) == GRAVITON_OK ? DONE : report(text, error);
}

int main(int argc, char **argv)
{
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        fputs(help, stdout);
        return DONE;
    }
    const int getting = argc > 1 && strcmp(argv[1], "--get") == 0;
    if (getting ? argc < 4 || argc > 5 : argc < 3 || argv[1][0] == '-') {
        fputs("gravcp: wrong arguments; see gravcp --help\n", stderr);
        return USAGE;
    }
    const char *directory = argv[getting ? 2 : 1];
    graviton_error *error = NULL;
    graviton_store *store = NULL;
    graviton_config *config = NULL;
    graviton_status status = graviton_config_for_directory(directory, strlen(directory), &config, &error);
    if (status == GRAVITON_OK) {
        status = getting ? graviton_config_open_read_only(config, &store, &error) : graviton_config_open(config, &store, &error);
    }
    graviton_config_free(config);
    if (status != GRAVITON_OK) {
        return report(directory, error);
    }
    int result = DONE;
    if (getting) {
        result = get(store, argv[3], argc == 5 ? argv[4] : NULL);
    } else {
        for (int index = 2; index < argc; index++) {
            const int one = put(store, argv[index]);
            result = result == DONE ? one : result;
        }
    }
    if (graviton_store_close(store, &error) != GRAVITON_OK) {
        const int closing = report(directory, error);
        result = result == DONE ? closing : result;
    }
    graviton_store_free(store);
    return result;
}
