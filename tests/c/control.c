/* What the sanitizers and valgrind must object to, so that their silence means something: errors that are not freed, and a
 * read into a buffer that is too short.
 *
 * usage: control DIRECTORY leak|overflow */
#include "check.h"

static void leak(void)
{
    /* Many, for a pointer to the last one may still lie about on the stack. */
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
    /* strlen has nothing to stop at. */
    graviton_status status = graviton_blob_id_parse(text, strlen(text) + 1000, &id, NULL);
    free(text);
    return status == GRAVITON_OK;
}
