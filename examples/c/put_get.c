/* Puts a text into a store and gets it back: put_get DIRECTORY TEXT */
#include <graviton.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static graviton_error *error;

/* Ends the program if a call failed. */
static void check(graviton_status status)
{
    if (status != GRAVITON_OK) {
        fprintf(stderr, "put_get: %s. %s\n", graviton_error_message(error), graviton_error_advice(error));
        graviton_error_free(error);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: put_get DIRECTORY TEXT\n");
        return 2;
    }
    graviton_store *store = NULL;
    check(graviton_store_open(argv[1], strlen(argv[1]), &store, &error));

    graviton_put_receipt put = GRAVITON_PUT_RECEIPT_INIT;
    check(graviton_store_put(store, (const uint8_t *)argv[2], strlen(argv[2]), NULL, &put, &error));

    char id[GRAVITON_BLOB_ID_TEXT_MAX];
    check(graviton_blob_id_format(&put.id, id, sizeof(id), NULL, &error));
    printf("%s\n", id);

    uint8_t *bytes = malloc(put.id.size + 1);
    size_t count = 0;
    check(graviton_store_get(store, &put.id, bytes, put.id.size, NULL, &count, &error));
    printf("%.*s\n", (int)count, (const char *)bytes);

    free(bytes);
    check(graviton_store_close(store, &error));
    graviton_store_free(store);
    return 0;
}
