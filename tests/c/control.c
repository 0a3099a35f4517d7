/* Errors that the sanitizers and valgrind must report, so that their silence means something: errors that
 * are not freed, and a read beyond the end of a buffer.
 *
 * usage: control DIRECTORY leak|overflow */
#include "check.h"

static void leak(void)
{
    /* Many, because a pointer to the last one may remain on the stack. */
    for (int count = 0; count < 100; count++) {
        graviton_blob_id id;
        CHECK(graviton_blob_id_parse("x", 1, &id, &error) != GRAVITON_OK);
        error = NULL;
    }
}

int main(int count, char **arguments)
{
    CHECK(count == 3);
    if (arguments[2][0] == 'l') {
        leak();
        return 0;
    }
    graviton_blob_id id;
    char *text = malloc(4);
    memcpy(text, "text", 4);
    /* strlen finds no NUL to stop at. */
    graviton_status status = graviton_blob_id_parse(text, strlen(text) + 1000, &id, NULL);
    free(text);
    return status == GRAVITON_OK;
}
