/* A program with another static library of Rust beside libgraviton. Both unwind. */
#include "check.h"

/* Defined in beside.rs. */
int beside_catches(void);

int main(int count, char **arguments)
{
    CHECK(count == 2);
    graviton_store *store = open_store(inside(arguments[1], "store"));
    graviton_blob_id id = put(store, "beside", 6);
    CHECK(beside_catches() == 1);
    expect_blob(store, &id, (const unsigned char *)"beside", 6);
    graviton_store_free(store);
    puts("both work");
    return 0;
}
