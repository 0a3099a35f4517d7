/* A program with a SQLite of its own beside the one in libgraviton: each uses its own, of any version. */
#include <sqlite3.h>

#include "check.h"

int main(int count, char **arguments)
{
    CHECK(count == 2);
    sqlite3 *database = NULL;
    graviton_store *store = open_store(inside(arguments[1], "store"));
    graviton_blob_id id = put(store, "beside", 6);
    /* The version of the header in this compilation, not Graviton's. */
    CHECK(strcmp(sqlite3_libversion(), SQLITE_VERSION) == 0);
    CHECK(sqlite3_open(inside(arguments[1], "own.db"), &database) == SQLITE_OK);
    CHECK(sqlite3_exec(database, "CREATE TABLE t (x); INSERT INTO t VALUES (1)", NULL, NULL, NULL) == SQLITE_OK);
    CHECK(sqlite3_close(database) == SQLITE_OK);
    expect_blob(store, &id, (const unsigned char *)"beside", 6);
    graviton_store_free(store);
    printf("%s\n", sqlite3_libversion());
    return 0;
}
