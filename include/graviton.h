/*
 * graviton.h: the C interface of Graviton, an embeddable content-addressed blob store.
 *
 * A stream goes in, is cut into blocks by its content, each block is stored once under its hash, and the blob comes
 * back verified, as a whole or any range of it, under an id that is the hash of its content.
 *
 *     graviton_error *error = NULL;
 *     graviton_store *store = NULL;
 *     graviton_put_receipt put = GRAVITON_PUT_RECEIPT_INIT;
 *     if (graviton_store_open(GRAVITON_LITERAL("./data"), &store, &error) != GRAVITON_OK
 *             || graviton_store_put(store, bytes, length, NULL, &put, &error) != GRAVITON_OK) {
 *         fprintf(stderr, "%s\n", graviton_error_message(error));
 *     }
 *     graviton_error_free(error);
 *     graviton_store_free(store);
 *
 * Made from graviton-ffi by cbindgen; change it there.
 *
 * ERRORS
 *   A function that can fail returns a graviton_status: GRAVITON_OK (0), or a negative GRAVITON_ERROR_.... Its last argument
 *   `error` may be NULL. Otherwise `*error` is written by every call: NULL on success, and on failure an error that the
 *   caller frees with graviton_error_free; what it held before is overwritten and not freed. There is no thread-local
 *   or global "last error". Results are written on success only.
 *   Every function can return GRAVITON_ERROR_INVALID_ARGUMENT: for NULL where that is not allowed, any misaligned pointer
 *   (for a misaligned `error` without writing there), a flag that is neither 0 nor 1, an enumeration value that does not
 *   exist, a length above PTRDIFF_MAX, a `struct_size` that no version has, an option that the library is too old for, or a
 *   handle that is used by two threads where only one may. The call then did nothing.
 *   Every function on a handle can return GRAVITON_ERROR_CLOSED and GRAVITON_ERROR_FORKED, and GRAVITON_ERROR_CANCELLED where
 *   there is a callback. What else a function often returns is said there; any may fail as its backends do
 *   (GRAVITON_ERROR_NO_SPACE, GRAVITON_ERROR_BACKEND_UNAVAILABLE, ...). GRAVITON_ERROR_INTERNAL is a bug of the library: a
 *   panic in it ends there and never reaches the program.
 *
 * OWNERSHIP
 *   _new, _open and _from_... give a handle in their last result; _free takes it back. _free takes NULL, and the order
 *   does not matter: a reader, a writer or an iterator keeps what it needs of the store. Everything else borrows for the
 *   length of the call, unless it says otherwise. To free twice, to use what was freed, and to free what is in use, by another
 *   thread or by the call that a callback is part of, are errors that nothing can detect. A misaligned pointer is not freed.
 *
 * TEXT, BYTES AND STRUCTURES
 *   Text and bytes come as pointer and length in bytes; NULL with 0 is empty. GRAVITON_LITERAL("...") gives both for a
 *   literal. Text is UTF-8; paths are any bytes but NUL. Text that the library gives is NUL-terminated.
 *   graviton_blob_id, graviton_block_key and graviton_manifest_entry never change. Other structures begin with `struct_size`,
 *   which the _INIT macros set, and may get more fields at their end, for which 0 means what was before there was such a field.
 *   So a program goes on with a later library, which takes the rest for 0, and fills in what the program knows. With an earlier
 *   library it goes on as long as the fields that this does not know are 0; in a report they stay as they were.
 *   Fields called `reserved` are 0. Flags and enumeration values are int32_t.
 *
 * THREADS
 *   "Blocks" in a description means that the call may wait for disks, networks or other threads. Every function may be called
 *   from any thread, also from one that belongs to an event loop, which it then holds up.
 *
 *   graviton_store                any number of threads at once
 *   graviton_reader               graviton_reader_read_at, _size, _id: any number at once; read, seek, tell: one at a time,
 *                                 beside those
 *   graviton_writer               one at a time
 *   graviton_list, _manifest      one at a time
 *   graviton_config               one at a time
 *   graviton_error                any number at once: it never changes
 *   graviton_blob_id, structures  plain data, as any in C
 *   _free                         nobody else may be using the handle; other handles on the same store do not matter
 *
 *   "One at a time" is checked: the second thread gets GRAVITON_ERROR_INVALID_ARGUMENT and nothing happens to the handle.
 *   graviton_store_close may be called beside all else: calls under way end well or with GRAVITON_ERROR_CLOSED.
 *
 * CALLBACKS
 *   take the program's pointer first, run on the thread that made the call and only until it returns (a cancel callback: on
 *   any thread that uses the handle), and return 0 to go on. Anything else ends the call, with GRAVITON_ERROR_CANCELLED and the
 *   value in graviton_error_callback_code. They may call into the library, with the same store too; what they call is ended by
 *   the cancel callback of the handle that they use, and by no other. They may read what was filled in so far, must not change
 *   what the call reads, and must not free the handle that is in the call. They must return: a C++ exception or longjmp out of
 *   one is undefined.
 *
 * FORK
 *   In a child process, handles that the parent opened return GRAVITON_ERROR_FORKED, and freeing them only forgets
 *   them: what they held stays as it was, for its locks and threads are the parent's.
 *   A child may open stores of its own, but not the SQLite file that its parent had open. Configurations, ids and errors go
 *   on working.
 *
 * WHAT IS NOT HERE
 *   The sessions of the engine, by which servers take blocks from clients that cut by themselves: they are for servers, and
 *   those have HTTP. What is asynchronous: a call blocks its thread, and can be cancelled. Page-wise listing, which the
 *   iterators do; the sizes and sums of reports that can be computed from others. Block stores and manifest repositories by
 *   themselves.
 *
 * CLEANING UP
 *   The library starts threads when a store is first opened, and never ends them. It installs no signal handlers, and reads no
 *   environment unless asked. Do not dlclose it.
 */

#ifndef GRAVITON_H
#define GRAVITON_H

#include <stddef.h>
#include <stdint.h>

/**
 * The major version of this header.
 */
#define GRAVITON_VERSION_MAJOR 0

/**
 * The minor version of this header.
 */
#define GRAVITON_VERSION_MINOR 2

/**
 * The patch version of this header.
 */
#define GRAVITON_VERSION_PATCH 0

/**
 * The version of this header as one number: major * 1000000 + minor * 1000 + patch. For `#if`.
 */
#define GRAVITON_VERSION_NUMBER 1000

/**
 * For a progress callback: the size of the whole is not known.
 */
#define GRAVITON_SIZE_UNKNOWN 18446744073709551615ull

/**
 * What a callback of gc, verify, copy_from or repair_from returns to end the work early in an orderly way: the call then
 * succeeds, and its report says that it is not complete. Anything else but 0 ends it with GRAVITON_ERROR_CANCELLED.
 */
#define GRAVITON_STOP 2147483647

/**
 * BLAKE3 with 32 bytes of output.
 */
#define GRAVITON_ALGO_BLAKE3 1

/**
 * SHA-256.
 */
#define GRAVITON_ALGO_SHA256 2

/**
 * The length of a digest in bytes.
 */
#define GRAVITON_DIGEST_SIZE 32

/**
 * The most bytes that a block can have: 16 MiB.
 */
#define GRAVITON_BLOCK_SIZE_MAX 16777216

/**
 * Room for the text of any blob id or block key, with the NUL behind it, in bytes.
 */
#define GRAVITON_BLOB_ID_TEXT_MAX 92

/**
 * Room for the text of any chunker, with the NUL behind it, in bytes.
 */
#define GRAVITON_CHUNKER_TEXT_MAX 544

/**
 * For graviton_reader_seek: the offset counts from the start of the blob. SEEK_SET of C has this value too.
 */
#define GRAVITON_SEEK_SET 0

/**
 * For graviton_reader_seek: the offset counts from the position. SEEK_CUR of C has this value too.
 */
#define GRAVITON_SEEK_CUR 1

/**
 * For graviton_reader_seek: the offset counts from the end of the blob. SEEK_END of C has this value too.
 */
#define GRAVITON_SEEK_END 2

/**
 * For graviton_gc_options: no grace at all, so that everything that was deleted goes.
 */
#define GRAVITON_GC_NO_GRACE -1

/**
 * Room for the text of any place in a verification, with the NUL behind it, in bytes.
 */
#define GRAVITON_VERIFY_CURSOR_MAX 128

/**
 * An event: so far it has got.
 */
#define GRAVITON_VERIFY_PROGRESS 1

/**
 * An event: a block that live blobs need is bad.
 */
#define GRAVITON_VERIFY_BLOCK 2

/**
 * An event: the entries of a blob's manifest do not tile it.
 */
#define GRAVITON_VERIFY_MANIFEST 3

/**
 * An event: the database finds something wrong with itself.
 */
#define GRAVITON_VERIFY_DATABASE 4

/**
 * An event: bytes that no row knows, of a put of this moment, or garbage.
 */
#define GRAVITON_VERIFY_UNREFERENCED 5

/**
 * No damage: for events that are not about a bad block.
 */
#define GRAVITON_DAMAGE_NONE 0

/**
 * The block is not there.
 */
#define GRAVITON_DAMAGE_MISSING 1

/**
 * The block has another length than its key says.
 */
#define GRAVITON_DAMAGE_WRONG_LENGTH 2

/**
 * The bytes of the block are others than those that were put.
 */
#define GRAVITON_DAMAGE_CORRUPT 3

/**
 * Where a store is and how it works: names and values as in the environment (graviton_setting_name lists them). Owned;
 * free it with graviton_config_free. Stores that were opened with it do not need it. One thread at a time.
 */
typedef struct graviton_config graviton_config;

/**
 * Why a call failed. Immutable: any number of threads may read it. Free it with graviton_error_free.
 */
typedef struct graviton_error graviton_error;

/**
 * A walk over the blobs of a store. Owned; free it with graviton_list_free. One thread at a time: a second one gets
 * GRAVITON_ERROR_INVALID_ARGUMENT.
 */
typedef struct graviton_list graviton_list;

/**
 * A walk over the blocks of a blob. Owned; free it with graviton_manifest_free. One thread at a time: a second one gets
 * GRAVITON_ERROR_INVALID_ARGUMENT.
 */
typedef struct graviton_manifest graviton_manifest;

/**
 * A blob being read: verified bytes. Owned; free it with graviton_reader_free. Any number of threads may call
 * graviton_reader_read_at at once; what uses the position is for one thread at a time, beside those, and a second one gets
 * GRAVITON_ERROR_INVALID_ARGUMENT. It goes on for the grace after the blob was deleted.
 */
typedef struct graviton_reader graviton_reader;

/**
 * An open store. Owned; free it with graviton_store_free. Any number of threads may use it at once, and any number of
 * processes may have the same store open. Readers, writers and iterators keep what they need of it: free in any order.
 */
typedef struct graviton_store graviton_store;

/**
 * A blob being written. Owned; free it with graviton_writer_free, which aborts what was not finished. One thread at a time:
 * a second one gets GRAVITON_ERROR_INVALID_ARGUMENT.
 */
typedef struct graviton_writer graviton_writer;

/**
 * What a call came to: GRAVITON_OK, or one of the negative GRAVITON_ERROR_.... Numbers are never reused; a later version may
 * have more of them.
 */
typedef int32_t graviton_status;

/**
 * The name of a blob: the digest and length of its whole content. Plain data of a fixed size that will never grow; to be
 * copied and kept like a number. Two ids are equal if all their bytes are.
 */
typedef struct graviton_blob_id {
    /**
     * The length of the blob in bytes, at most 2^63 - 1.
     */
    uint64_t size;
    /**
     * GRAVITON_ALGO_BLAKE3 or GRAVITON_ALGO_SHA256.
     */
    int32_t algo;
    /**
     * 0.
     */
    uint32_t reserved;
    /**
     * The digest of the content.
     */
    uint8_t digest[GRAVITON_DIGEST_SIZE];
} graviton_blob_id;

/**
 * The name of a block, as blobs are cut into: its digest and length. Plain data like graviton_blob_id.
 */
typedef struct graviton_block_key {
    /**
     * The length of the block in bytes, 1 to 16 MiB.
     */
    uint64_t size;
    /**
     * GRAVITON_ALGO_BLAKE3 or GRAVITON_ALGO_SHA256.
     */
    int32_t algo;
    /**
     * 0.
     */
    uint32_t reserved;
    /**
     * The digest of the block.
     */
    uint8_t digest[GRAVITON_DIGEST_SIZE];
} graviton_block_key;

/**
 * Asked about every 50 ms, while a call waits, whether to go on: for a network, disk, pipe or socket that does not answer, or
 * a user who does not want to wait. Not asked: by calls that are over sooner or never block, while the program's own
 * callbacks run, and by calls that these make with a handle that has no cancel callback. Called on the thread that makes the
 * call, so from several at once if several use the handle. Returns 0 to go on; anything else ends the call with
 * GRAVITON_ERROR_CANCELLED, and graviton_error_callback_code gives the value. Must be quick, must use neither the handle nor
 * the buffers that are in the call, and must return: no exception, no longjmp.
 */
typedef int32_t (*graviton_cancel_callback)(void *userdata);

/**
 * What is known of a blob. Set `struct_size` before a call, with GRAVITON_BLOB_STAT_INIT.
 */
typedef struct graviton_blob_stat {
    /**
     * sizeof(graviton_blob_stat).
     */
    size_t struct_size;
    /**
     * Its id; the size in bytes is in it.
     */
    struct graviton_blob_id id;
    /**
     * How many blocks it has.
     */
    uint64_t blocks;
    /**
     * When it was put: milliseconds since 1970-01-01 UTC.
     */
    int64_t created_at_ms;
    /**
     * The setting GRAVITON_CHUNKER that it was cut with, NUL-terminated.
     */
    char chunker[GRAVITON_CHUNKER_TEXT_MAX];
} graviton_blob_stat;

/**
 * Sums over a store. Set `struct_size` before a call, with GRAVITON_STORE_STATS_INIT.
 */
typedef struct graviton_store_stats {
    /**
     * sizeof(graviton_store_stats).
     */
    size_t struct_size;
    /**
     * Live blobs.
     */
    uint64_t blobs;
    /**
     * The sum of their sizes in bytes.
     */
    uint64_t logical_bytes;
    /**
     * Blocks that are stored, each once.
     */
    uint64_t blocks;
    /**
     * The sum of their sizes in bytes.
     */
    uint64_t stored_bytes;
    /**
     * Deleted blobs that can still be restored.
     */
    uint64_t dead_blobs;
    /**
     * The sum of their sizes in bytes.
     */
    uint64_t dead_bytes;
    /**
     * Bytes of stored blocks that neither a live blob nor a put under way refers to. A collection without grace frees
     * these, and what a put that failed or was aborted had announced and may have written, which only its plan counts.
     */
    uint64_t reclaimable_bytes;
    /**
     * How many bytes of blobs a stored byte serves; 1 for an empty store.
     */
    double dedup_ratio;
} graviton_store_stats;

/**
 * Told how far a put or get has come: `done` bytes of `total`, which is GRAVITON_SIZE_UNKNOWN if that is not known. Called
 * on the thread that called the function, as often as bytes come or go: every few KiB to some MiB. Returns 0 to go on;
 * anything else aborts with GRAVITON_ERROR_CANCELLED, nothing is stored, and graviton_error_callback_code gives the value.
 * May call into the library, with this store too. Must return: no exception, no longjmp.
 */
typedef int32_t (*graviton_progress_callback)(void *userdata, uint64_t done, uint64_t total);

/**
 * How to put. Initialise it with GRAVITON_PUT_OPTIONS_INIT, then set what is wanted.
 */
typedef struct graviton_put_options {
    /**
     * sizeof(graviton_put_options).
     */
    size_t struct_size;
    /**
     * The id that the content must have; any other is GRAVITON_ERROR_DIGEST_MISMATCH and stores nothing. NULL: any content.
     */
    const struct graviton_blob_id *expected;
    /**
     * Told how far it is; NULL for nobody.
     */
    graviton_progress_callback progress;
    /**
     * For the callback.
     */
    void *progress_userdata;
} graviton_put_options;

/**
 * What a put did. Set `struct_size` before a call, with GRAVITON_PUT_RECEIPT_INIT.
 */
typedef struct graviton_put_receipt {
    /**
     * sizeof(graviton_put_receipt).
     */
    size_t struct_size;
    /**
     * The id under which the content can be read.
     */
    struct graviton_blob_id id;
    /**
     * How many blocks the content was cut into.
     */
    uint64_t blocks;
    /**
     * How many of them were not in the store before and were written.
     */
    uint64_t fresh_blocks;
    /**
     * The bytes of those.
     */
    uint64_t fresh_bytes;
    /**
     * 1 if the blob is new, 0 if it was there already.
     */
    int32_t created;
    /**
     * 0.
     */
    uint32_t reserved;
} graviton_put_receipt;

/**
 * Asked for the next bytes of a blob: puts up to `capacity` of them in `buffer` and their number in `*count`, where 0 is
 * the end of the blob. Called on the thread that called the function. Returns 0; anything else aborts with
 * GRAVITON_ERROR_CANCELLED, nothing is stored, and graviton_error_callback_code gives the value. May call into the library,
 * with this store too. Must return: no exception, no longjmp.
 */
typedef int32_t (*graviton_read_callback)(void *userdata, uint8_t *buffer, size_t capacity, size_t *count);

/**
 * How to get. Initialise it with GRAVITON_GET_OPTIONS_INIT, then set what is wanted.
 */
typedef struct graviton_get_options {
    /**
     * sizeof(graviton_get_options).
     */
    size_t struct_size;
    /**
     * Told how far it is; NULL for nobody.
     */
    graviton_progress_callback progress;
    /**
     * For the callback.
     */
    void *progress_userdata;
} graviton_get_options;

/**
 * A block's place in a blob. Plain data of a fixed size that will never grow.
 */
typedef struct graviton_manifest_entry {
    /**
     * Where the block starts in the blob, in bytes.
     */
    uint64_t offset;
    /**
     * Which block; its size is in the key.
     */
    struct graviton_block_key key;
} graviton_manifest_entry;

/**
 * What a collection is to do. Initialise it with GRAVITON_GC_OPTIONS_INIT, then set what is wanted.
 */
typedef struct graviton_gc_options {
    /**
     * sizeof(graviton_gc_options).
     */
    size_t struct_size;
    /**
     * Blobs that were deleted longer ago go, in milliseconds. 0: as configured (GRAVITON_GC_GRACE). GRAVITON_GC_NO_GRACE:
     * all of them.
     */
    int64_t grace_ms;
    /**
     * No step begins after so long, in milliseconds. 0: no limit.
     */
    uint64_t max_time_ms;
    /**
     * So many blocks are deleted at most. 0: no limit.
     */
    uint64_t max_blocks;
    /**
     * About so many bytes are deleted at most. 0: no limit.
     */
    uint64_t max_bytes;
    /**
     * So many blocks are deleted in a second at most. 0: no limit.
     */
    uint32_t blocks_per_second;
    /**
     * 1: only find out what there is to do. 0: do it.
     */
    int32_t dry_run;
} graviton_gc_options;

/**
 * What a collection did, or, after a dry run, would do. Set `struct_size` before a call, with GRAVITON_GC_REPORT_INIT.
 */
typedef struct graviton_gc_report {
    /**
     * sizeof(graviton_gc_report).
     */
    size_t struct_size;
    /**
     * Puts of writers that are gone.
     */
    uint64_t abandoned_puts;
    /**
     * Deleted blobs that went, those of abandoned and failed puts among them.
     */
    uint64_t blobs;
    /**
     * How many of them the callback gets named; of a dry run only.
     */
    size_t named_count;
    /**
     * Blocks that were deleted.
     */
    uint64_t blocks;
    /**
     * The sum of their sizes in bytes.
     */
    uint64_t bytes;
    /**
     * Blocks that lost a reference and are kept, because something else refers to them.
     */
    uint64_t kept_referenced;
    /**
     * Blocks that are kept for now because another collection is about to delete them, or was when it died.
     */
    uint64_t kept_doomed;
    /**
     * Blocks that could not be deleted; the next collection tries again.
     */
    uint64_t kept_failed;
    /**
     * Files of dead processes that were removed.
     */
    uint64_t leftovers;
    /**
     * How long it took.
     */
    double seconds;
    /**
     * 1 if it was a dry run, otherwise 0.
     */
    int32_t dry_run;
    /**
     * 1 if nothing is left to do; 0 if a limit or the callback ended it.
     */
    int32_t complete;
} graviton_gc_report;

/**
 * Told what a collection has done so far: after each step, and once more when it is over, with the final report. `named` are
 * the `report->named_count` blobs that a dry run names, NULL if there are none; both live until the callback returns. Called
 * on the thread that called graviton_store_gc. Returns 0 to go on, GRAVITON_STOP to end early, or anything else to abort
 * with GRAVITON_ERROR_CANCELLED; what the last call returns is not looked at. May call into the library, with this store
 * too. Must return: no exception, no longjmp.
 */
typedef int32_t (*graviton_gc_callback)(void *userdata,
                                        const struct graviton_gc_report *report,
                                        const struct graviton_blob_id *named);

/**
 * What a verification is to do. Initialise it with GRAVITON_VERIFY_OPTIONS_INIT, then set what is wanted.
 */
typedef struct graviton_verify_options {
    /**
     * sizeof(graviton_verify_options).
     */
    size_t struct_size;
    /**
     * 1: hash every byte again. 0: look only at lengths.
     */
    int32_t deep;
    /**
     * 1: hand blocks that no row knows to the collector. They may be a put's of this moment, which then writes them again.
     * 0: only tell of them.
     */
    int32_t adopt;
    /**
     * Only these blobs, or none if `id_count` is 0. NULL, with an `id_count` of 0: all of the store.
     */
    const struct graviton_blob_id *ids;
    /**
     * How many of them.
     */
    size_t id_count;
    /**
     * Read at most so many bytes in a second. 0: no limit.
     */
    uint64_t bytes_per_second;
    /**
     * Go on where an earlier one ended: the `cursor` of its report. NULL: from the start.
     */
    const char *from;
    /**
     * The length of it in bytes; 0 for the start.
     */
    size_t from_length;
} graviton_verify_options;

/**
 * What a verification looked at and found. Set `struct_size` before a call, with GRAVITON_VERIFY_REPORT_INIT.
 */
typedef struct graviton_verify_report {
    /**
     * sizeof(graviton_verify_report).
     */
    size_t struct_size;
    /**
     * Blobs whose manifests were looked at.
     */
    uint64_t blobs;
    /**
     * Blocks that were looked at.
     */
    uint64_t blocks;
    /**
     * Bytes that were hashed.
     */
    uint64_t bytes;
    /**
     * Blocks of live blobs that are missing.
     */
    uint64_t missing;
    /**
     * Blocks of live blobs with another length or other bytes.
     */
    uint64_t corrupt;
    /**
     * Live blobs whose manifest does not tile them.
     */
    uint64_t broken_manifests;
    /**
     * What the database found wrong with itself.
     */
    uint64_t database_problems;
    /**
     * Blocks that no row knows.
     */
    uint64_t unreferenced;
    /**
     * Their bytes.
     */
    uint64_t unreferenced_bytes;
    /**
     * How long it took.
     */
    double seconds;
    /**
     * 1 if no live blob is hurt, otherwise 0.
     */
    int32_t clean;
    /**
     * 1 if all was looked at, 0 if the callback ended it early.
     */
    int32_t complete;
    /**
     * Where to go on, if it was ended early; otherwise empty. NUL-terminated.
     */
    char cursor[GRAVITON_VERIFY_CURSOR_MAX];
} graviton_verify_report;

/**
 * What a verification tells while it runs. It and what it points to live until the callback returns.
 */
typedef struct graviton_verify_event {
    /**
     * sizeof(graviton_verify_event) of the library, which may be more than the program's.
     */
    size_t struct_size;
    /**
     * GRAVITON_VERIFY_PROGRESS, or what was found: one of the other GRAVITON_VERIFY_.... A later version may have more.
     */
    int32_t kind;
    /**
     * For GRAVITON_VERIFY_BLOCK: what is wrong with it, one of GRAVITON_DAMAGE_....
     */
    int32_t damage;
    /**
     * For GRAVITON_VERIFY_BLOCK and GRAVITON_VERIFY_UNREFERENCED: the block. Otherwise all 0.
     */
    struct graviton_block_key block;
    /**
     * For GRAVITON_VERIFY_UNREFERENCED and GRAVITON_DAMAGE_WRONG_LENGTH: how many bytes are there.
     */
    uint64_t length;
    /**
     * For GRAVITON_VERIFY_BLOCK: the blobs that are hurt, up to a thousand of them. For GRAVITON_VERIFY_MANIFEST: the blob.
     * Otherwise NULL.
     */
    const struct graviton_blob_id *blobs;
    /**
     * How many there are at `blobs`.
     */
    size_t blob_count;
    /**
     * For GRAVITON_VERIFY_MANIFEST and GRAVITON_VERIFY_DATABASE: what is wrong, as UTF-8. Otherwise empty. NUL-terminated.
     */
    const char *text;
    /**
     * For GRAVITON_VERIFY_PROGRESS: what was looked at so far. Otherwise NULL.
     */
    const struct graviton_verify_report *report;
} graviton_verify_event;

/**
 * Told what a verification finds, and now and then how far it is. Called on the thread that called graviton_store_verify.
 * Returns 0 to go on, GRAVITON_STOP to end early, so that the report says where to go on, or anything else to abort with
 * GRAVITON_ERROR_CANCELLED. May call into the library, with this store too. Must return: no exception, no longjmp.
 */
typedef int32_t (*graviton_verify_callback)(void *userdata, const struct graviton_verify_event *event);

/**
 * What is to be copied. Initialise it with GRAVITON_COPY_OPTIONS_INIT, then set what is wanted.
 */
typedef struct graviton_copy_options {
    /**
     * sizeof(graviton_copy_options).
     */
    size_t struct_size;
    /**
     * These blobs, or none if `id_count` is 0. NULL, with an `id_count` of 0: all of the other store.
     */
    const struct graviton_blob_id *ids;
    /**
     * How many of them.
     */
    size_t id_count;
} graviton_copy_options;

/**
 * What was copied. Set `struct_size` before a call, with GRAVITON_COPY_REPORT_INIT.
 */
typedef struct graviton_copy_report {
    /**
     * sizeof(graviton_copy_report).
     */
    size_t struct_size;
    /**
     * Blobs that are new here.
     */
    uint64_t blobs;
    /**
     * Blobs that were here already.
     */
    uint64_t present;
    /**
     * Blocks that were fetched from the other store.
     */
    uint64_t blocks;
    /**
     * Their bytes.
     */
    uint64_t bytes;
    /**
     * How many blobs the other store does not have whole. They were left out; the callback gets them named.
     */
    size_t damaged_count;
    /**
     * How long it took.
     */
    double seconds;
    /**
     * 1 if all was done, 0 if the callback ended it.
     */
    int32_t complete;
    /**
     * 0.
     */
    uint32_t reserved;
} graviton_copy_report;

/**
 * Told what a copy has done so far, and once more when it is over, with the final report. `damaged` are the
 * `report->damaged_count` blobs that the other store does not have whole, NULL if there are none; both live until the
 * callback returns. Called on the thread that called graviton_store_copy_from. Returns 0 to go on, GRAVITON_STOP to end
 * early, or anything else to abort with GRAVITON_ERROR_CANCELLED; what the last call returns is not looked at. May call into
 * the library, with these stores too. Must return: no exception, no longjmp.
 */
typedef int32_t (*graviton_copy_callback)(void *userdata,
                                          const struct graviton_copy_report *report,
                                          const struct graviton_blob_id *damaged);

/**
 * What was mended. Set `struct_size` before a call, with GRAVITON_REPAIR_REPORT_INIT.
 */
typedef struct graviton_repair_report {
    /**
     * sizeof(graviton_repair_report).
     */
    size_t struct_size;
    /**
     * Blocks that were looked at.
     */
    uint64_t checked;
    /**
     * Bad blocks that are whole again.
     */
    uint64_t repaired;
    /**
     * Their bytes.
     */
    uint64_t bytes;
    /**
     * How many bad blocks the other store does not have either, or not whole. The callback gets them named.
     */
    size_t lost_count;
    /**
     * How long it took.
     */
    double seconds;
    /**
     * 1 if all was looked at, 0 if the callback ended it.
     */
    int32_t complete;
    /**
     * 0.
     */
    uint32_t reserved;
} graviton_repair_report;

/**
 * Told what a repair has done so far, and once more when it is over, with the final report. `lost` are the
 * `report->lost_count` blocks that the other store does not have whole either, NULL if there are none; both live until the
 * callback returns. Called on the thread that called graviton_store_repair_from. Returns 0 to go on, GRAVITON_STOP to end
 * early, or anything else to abort with GRAVITON_ERROR_CANCELLED; what the last call returns is not looked at. May call into
 * the library, with these stores too. Must return: no exception, no longjmp.
 */
typedef int32_t (*graviton_repair_callback)(void *userdata,
                                            const struct graviton_repair_report *report,
                                            const struct graviton_block_key *lost);

/**
 * It worked.
 */
#define GRAVITON_OK 0

/**
 * `invalid-argument`: a parameter makes no sense; the call did nothing.
 */
#define GRAVITON_ERROR_INVALID_ARGUMENT -1

/**
 * `invalid-id`: the text is not a blob id or block key.
 */
#define GRAVITON_ERROR_INVALID_ID -2

/**
 * `not-found`: there is no such blob (or file).
 */
#define GRAVITON_ERROR_NOT_FOUND -3

/**
 * `digest-mismatch`: the content is not what its id says.
 */
#define GRAVITON_ERROR_DIGEST_MISMATCH -4

/**
 * `too-large`: larger than a limit allows.
 */
#define GRAVITON_ERROR_TOO_LARGE -5

/**
 * `range-not-satisfiable`: the range starts behind the end of the blob.
 */
#define GRAVITON_ERROR_RANGE_NOT_SATISFIABLE -6

/**
 * `unauthorized`: no or wrong credentials were given to us.
 */
#define GRAVITON_ERROR_UNAUTHORIZED -7

/**
 * `forbidden`: the credentials do not allow this, or the operating system does not.
 */
#define GRAVITON_ERROR_FORBIDDEN -8

/**
 * `corrupt-block`: a block's bytes are not the bytes that were stored.
 */
#define GRAVITON_ERROR_CORRUPT_BLOCK -9

/**
 * `missing-block`: a block that a blob refers to is not in the block store.
 */
#define GRAVITON_ERROR_MISSING_BLOCK -10

/**
 * `backend-unavailable`: the database or block store does not answer; trying again may help.
 */
#define GRAVITON_ERROR_BACKEND_UNAVAILABLE -11

/**
 * `writer-expired`: the put took longer than its lease, and its blocks may have been collected; put again.
 */
#define GRAVITON_ERROR_WRITER_EXPIRED -12

/**
 * `no-space`: the disk is full.
 */
#define GRAVITON_ERROR_NO_SPACE -13

/**
 * `quota-exceeded`: a quota is used up.
 */
#define GRAVITON_ERROR_QUOTA_EXCEEDED -14

/**
 * `method-not-allowed`: the HTTP method does not apply here.
 */
#define GRAVITON_ERROR_METHOD_NOT_ALLOWED -15

/**
 * `timeout`: it took too long.
 */
#define GRAVITON_ERROR_TIMEOUT -16

/**
 * `length-required`: a length is needed and was not given.
 */
#define GRAVITON_ERROR_LENGTH_REQUIRED -17

/**
 * `unsupported`: known, but not supported here.
 */
#define GRAVITON_ERROR_UNSUPPORTED -18

/**
 * `rate-limited`: too many requests.
 */
#define GRAVITON_ERROR_RATE_LIMITED -19

/**
 * `config`: the configuration is wrong.
 */
#define GRAVITON_ERROR_CONFIG -20

/**
 * `version`: the store was written by a newer version.
 */
#define GRAVITON_ERROR_VERSION -21

/**
 * `forked`: the store was opened by the parent process, before `fork`.
 */
#define GRAVITON_ERROR_FORKED -22

/**
 * `closed`: the store, reader or writer is closed.
 */
#define GRAVITON_ERROR_CLOSED -23

/**
 * `cancelled`: the caller cancelled it.
 */
#define GRAVITON_ERROR_CANCELLED -24

/**
 * `io`: the operating system reported an input or output error.
 */
#define GRAVITON_ERROR_IO -25

/**
 * `latched`: an earlier failed write made this store refuse further writes until it is opened again.
 */
#define GRAVITON_ERROR_LATCHED -26

/**
 * `internal`: a bug in Graviton.
 */
#define GRAVITON_ERROR_INTERNAL -27

/**
 * `corrupt-database`: the database is damaged, or another program changed it.
 */
#define GRAVITON_ERROR_CORRUPT_DATABASE -28

/**
 * `overloaded`: too much is going on at once; trying again in a moment may help.
 */
#define GRAVITON_ERROR_OVERLOADED -29

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the library that is running, as text, such as "0.2.0". It lives for ever. Cannot fail, never blocks.
 */
const char *graviton_version(void);

/**
 * The version of the library that is running, composed like GRAVITON_VERSION_NUMBER. Cannot fail, never blocks.
 */
int32_t graviton_version_number(void);

/**
 * How many bytes to pass in one call of graviton_writer_write or graviton_reader_read for the best speed, in bytes.
 * Larger buffers gain nothing; smaller ones down to a few KiB lose little. Cannot fail, never blocks.
 */
size_t graviton_recommended_buffer_size(void);

/**
 * The stable name of a status, such as "not-found"; "ok" for GRAVITON_OK, NULL for a number that is no status. It lives
 * for ever. Never blocks.
 */
const char *graviton_status_name(graviton_status status);

/**
 * 1 for a status after which the same call may succeed later with nothing changed by the caller, otherwise 0. Never blocks.
 */
int32_t graviton_status_is_retryable(graviton_status status);

/**
 * How many error codes this library knows, so that a binding can make a table of them with graviton_status_at. Never
 * blocks.
 */
size_t graviton_status_count(void);

/**
 * The error code at an index from 0 to graviton_status_count() - 1, in the order -1, -2, ...; GRAVITON_OK for any other.
 * Never blocks.
 */
graviton_status graviton_status_at(size_t index);

/**
 * The status that the failed call returned: one of GRAVITON_ERROR_.... GRAVITON_OK for NULL. For a misaligned pointer, which is
 * no error object, GRAVITON_ERROR_INVALID_ARGUMENT; the other functions take one for NULL.
 */
graviton_status graviton_error_code(const struct graviton_error *error);

/**
 * The stable name of the code, such as "not-found"; "ok" for NULL. It lives for ever.
 */
const char *graviton_error_name(const struct graviton_error *error);

/**
 * What was tried, on what, and why it failed: UTF-8, in lower case and without a full stop, and without secrets. Empty
 * for NULL, never NULL. It lives as long as the error.
 */
const char *graviton_error_message(const struct graviton_error *error);

/**
 * What to do about it, as UTF-8. Empty if there is nothing to say and for NULL, never NULL. It lives as long as the
 * error.
 */
const char *graviton_error_advice(const struct graviton_error *error);

/**
 * 1 if the same call may succeed later with nothing changed by the caller, otherwise 0. 0 for NULL.
 */
int32_t graviton_error_is_retryable(const struct graviton_error *error);

/**
 * The operating system's errno where one caused this, otherwise 0. 0 for NULL.
 */
int32_t graviton_error_errno(const struct graviton_error *error);

/**
 * What the program's own callback returned to abort the call, where that is why it ended (its code is then
 * GRAVITON_ERROR_CANCELLED), otherwise 0. 0 for NULL.
 */
int32_t graviton_error_callback_code(const struct graviton_error *error);

/**
 * Frees an error. NULL is fine.
 */
void graviton_error_free(struct graviton_error *error);

/**
 * Parses `<algo>:<64 lower-case hex digits>:<size in bytes>` of `length` bytes into `id`. Strict: one id has one text.
 * GRAVITON_ERROR_INVALID_ID if it is another. Never blocks.
 */
graviton_status graviton_blob_id_parse(const char *text,
                                       size_t length,
                                       struct graviton_blob_id *id,
                                       struct graviton_error **error);

/**
 * Writes the text of an id and a NUL into `buffer` of `capacity` bytes, where GRAVITON_BLOB_ID_TEXT_MAX is always enough,
 * and its length without the NUL into `*length`. `buffer` may be NULL if `capacity` is 0: to ask for the length. `length`
 * may be NULL. Never blocks.
 */
graviton_status graviton_blob_id_format(const struct graviton_blob_id *id,
                                        char *buffer,
                                        size_t capacity,
                                        size_t *length,
                                        struct graviton_error **error);

/**
 * The id that `length` bytes would have as a blob, by this algorithm (GRAVITON_ALGO_...). Stores nothing and computes on this
 * thread. `bytes` may be NULL if `length` is 0.
 */
graviton_status graviton_blob_id_of(int32_t algo,
                                    const uint8_t *bytes,
                                    size_t length,
                                    struct graviton_blob_id *id,
                                    struct graviton_error **error);

/**
 * Compares two ids in the order of listings (algorithm, digest, size): `*order` becomes -1, 0 or 1. Never blocks.
 */
graviton_status graviton_blob_id_compare(const struct graviton_blob_id *left,
                                         const struct graviton_blob_id *right,
                                         int32_t *order,
                                         struct graviton_error **error);

/**
 * Like graviton_blob_id_parse, for the key of a block: `<algo>:<hex>:<size>`, with a size of 1 to 16 MiB. Never blocks.
 */
graviton_status graviton_block_key_parse(const char *text,
                                         size_t length,
                                         struct graviton_block_key *key,
                                         struct graviton_error **error);

/**
 * Like graviton_blob_id_format, for the key of a block: `<algo>:<hex>:<size>`. `buffer` may be NULL if `capacity` is 0.
 * `length` may be NULL. Never blocks.
 */
graviton_status graviton_block_key_format(const struct graviton_block_key *key,
                                          char *buffer,
                                          size_t capacity,
                                          size_t *length,
                                          struct graviton_error **error);

/**
 * The defaults: a store in `./.graviton`. Never blocks.
 */
graviton_status graviton_config_new(struct graviton_config **config, struct graviton_error **error);

/**
 * The defaults, with the store in this directory: `path` of `path_length` bytes, in any encoding. Never blocks.
 */
graviton_status graviton_config_for_directory(const char *path,
                                              size_t path_length,
                                              struct graviton_config **config,
                                              struct graviton_error **error);

/**
 * What the environment says, and the defaults for the rest. GRAVITON_ERROR_CONFIG if a variable is impossible. Nothing else
 * in this library reads the environment, but for the standard AWS_* variables when blocks are in AWS. Not while another
 * thread changes the environment. Never blocks.
 */
graviton_status graviton_config_from_env(struct graviton_config **config,
                                         struct graviton_error **error);

/**
 * Sets one setting, such as "GRAVITON_HASH" to "sha256": both UTF-8, of these lengths in bytes. An unknown name or an
 * impossible value is GRAVITON_ERROR_CONFIG, and the configuration stays as it was. Never blocks.
 */
graviton_status graviton_config_set(struct graviton_config *config,
                                    const char *name,
                                    size_t name_length,
                                    const char *value,
                                    size_t value_length,
                                    struct graviton_error **error);

/**
 * Writes the value of a setting, or its default, and a NUL into `buffer` of `capacity` bytes, and its length without the NUL
 * into `*length`. A secret is not given away: it reads as an ellipsis. `buffer` may be NULL if `capacity` is 0: to ask for
 * the length. `length` may be NULL. A buffer that is too small is GRAVITON_ERROR_INVALID_ARGUMENT, an unknown name
 * GRAVITON_ERROR_CONFIG. Never blocks.
 */
graviton_status graviton_config_get(const struct graviton_config *config,
                                    const char *name,
                                    size_t name_length,
                                    char *buffer,
                                    size_t capacity,
                                    size_t *length,
                                    struct graviton_error **error);

/**
 * How many bytes of memory a put may use, whatever the blob's size: 64 MiB, unless a program that has many puts at once says
 * less. About three of the largest blocks and 3 MiB is the least. Never blocks.
 */
graviton_status graviton_config_set_put_window(struct graviton_config *config,
                                               size_t bytes,
                                               struct graviton_error **error);

/**
 * With 1: opening takes over blocks that are already in the place and carry no store-id, as the first Graviton server left
 * them. Only for blocks that belong to this database. 0 is the default. Never blocks.
 */
graviton_status graviton_config_adopt(struct graviton_config *config,
                                      int32_t adopt,
                                      struct graviton_error **error);

/**
 * Opening with this configuration, and every call on the store and on its readers, writers and iterators, asks this callback
 * whether to go on. NULL takes it away for what is opened later. `userdata` may be NULL; it must stay good for as long as
 * any of those handles is used. Never blocks.
 */
graviton_status graviton_config_set_cancel(struct graviton_config *config,
                                           graviton_cancel_callback callback,
                                           void *userdata,
                                           struct graviton_error **error);

/**
 * Opens the store, and creates it if it is not there. Free it with graviton_store_free. Blocks.
 */
graviton_status graviton_config_open(const struct graviton_config *config,
                                     struct graviton_store **store,
                                     struct graviton_error **error);

/**
 * Opens a store that exists; one that does not is GRAVITON_ERROR_NOT_FOUND, and is not created. Free it with
 * graviton_store_free. Blocks.
 */
graviton_status graviton_config_open_existing(const struct graviton_config *config,
                                              struct graviton_store **store,
                                              struct graviton_error **error);

/**
 * Opens a store that exists, to be read only: nothing is written, and its directory may be read-only. One that does not
 * exist is GRAVITON_ERROR_NOT_FOUND. Free it with graviton_store_free. Blocks.
 */
graviton_status graviton_config_open_read_only(const struct graviton_config *config,
                                               struct graviton_store **store,
                                               struct graviton_error **error);

/**
 * Frees a configuration. NULL is fine.
 */
void graviton_config_free(struct graviton_config *config);

/**
 * How many settings there are. Never blocks.
 */
size_t graviton_setting_count(void);

/**
 * The name of a setting, by its index from 0 to graviton_setting_count() - 1; NULL for any other. It lives for ever. Never
 * blocks.
 */
const char *graviton_setting_name(size_t index);

/**
 * The default of a setting, empty if it has none; NULL for an index that is none. It lives for ever. Never blocks.
 */
const char *graviton_setting_default(size_t index);

/**
 * What a setting means, in English; NULL for an index that is none. It lives for ever. Never blocks.
 */
const char *graviton_setting_meaning(size_t index);

/**
 * Opens the store in a directory (`path` of `path_length` bytes, in any encoding), with blocks as files and manifests in
 * SQLite; creates it if it is not there. Everything else is as graviton_config_for_directory has it. Free it with
 * graviton_store_free. Blocks.
 */
graviton_status graviton_store_open(const char *path,
                                    size_t path_length,
                                    struct graviton_store **store,
                                    struct graviton_error **error);

/**
 * Another handle on the same store, whose calls, and those of the readers, writers and iterators that are opened with it,
 * ask this callback whether to go on: one for each thread or request that is to be cancelled by itself. A callback of NULL
 * gives a handle that asks nobody. `userdata` may be NULL; it must stay good for as long as those handles are used. Closing
 * one handle closes the store for all; free each with graviton_store_free. Never blocks.
 */
graviton_status graviton_store_with_cancel(const struct graviton_store *store,
                                           graviton_cancel_callback callback,
                                           void *userdata,
                                           struct graviton_store **other,
                                           struct graviton_error **error);

/**
 * Closes the store in an orderly way: everything that comes later, with any handle on it, its readers, writers and iterators,
 * is GRAVITON_ERROR_CLOSED; what is under way in other threads ends well or with that. A second close does nothing. The
 * handle is still to be freed. Blocks.
 */
graviton_status graviton_store_close(struct graviton_store *store,
                                     struct graviton_error **error);

/**
 * Frees a handle. NULL is fine. Without graviton_store_close, the last handle that needs the store leaves it as tidy as it
 * can without waiting; nothing that was committed is lost either way. In a forked child it only forgets the handle.
 */
void graviton_store_free(struct graviton_store *store);

/**
 * What is known of a blob; GRAVITON_ERROR_NOT_FOUND if it is not there. Blocks.
 */
graviton_status graviton_store_stat(const struct graviton_store *store,
                                    const struct graviton_blob_id *id,
                                    struct graviton_blob_stat *stat,
                                    struct graviton_error **error);

/**
 * Whether a blob is there: `*exists` becomes 1 or 0. Blocks.
 */
graviton_status graviton_store_exists(const struct graviton_store *store,
                                      const struct graviton_blob_id *id,
                                      int32_t *exists,
                                      struct graviton_error **error);

/**
 * Deletes a blob: once this has returned, no process finds it any more; GRAVITON_ERROR_NOT_FOUND if it is not there. It can
 * be restored for the grace (GRAVITON_GC_GRACE), and what reads it goes on; its space comes back with the next
 * graviton_store_gc after that. Blocks.
 */
graviton_status graviton_store_delete(const struct graviton_store *store,
                                      const struct graviton_blob_id *id,
                                      struct graviton_error **error);

/**
 * Brings a deleted blob back, as long as no collection has begun with it: within the grace it is certain. Otherwise
 * GRAVITON_ERROR_NOT_FOUND. One that is not deleted stays as it is, and the call succeeds. Blocks.
 */
graviton_status graviton_store_restore(const struct graviton_store *store,
                                       const struct graviton_blob_id *id,
                                       struct graviton_error **error);

/**
 * Sums over the store. Costs time proportional to what is stored. Blocks.
 */
graviton_status graviton_store_stats_get(const struct graviton_store *store,
                                         struct graviton_store_stats *stats,
                                         struct graviton_error **error);

/**
 * Writes a consistent copy of the manifests to a new file (`path` of `path_length` bytes), while the store is in use. Only
 * for manifests in SQLite: elsewhere it is GRAVITON_ERROR_UNSUPPORTED. Blocks.
 */
graviton_status graviton_store_backup(const struct graviton_store *store,
                                      const char *path,
                                      size_t path_length,
                                      struct graviton_error **error);

/**
 * Puts `length` bytes from memory, which must not change meanwhile. `bytes` may be NULL if `length` is 0: the empty blob.
 * `options` may be NULL. `receipt` may be NULL. Nothing is visible before this returns, and nothing at all if it fails.
 * Blocks.
 */
graviton_status graviton_store_put(const struct graviton_store *store,
                                   const uint8_t *bytes,
                                   size_t length,
                                   const struct graviton_put_options *options,
                                   struct graviton_put_receipt *receipt,
                                   struct graviton_error **error);

/**
 * Puts everything from a file descriptor's place to its end, and does not close it. A pipe, socket or device works, also in
 * non-blocking mode; while it is silent, the cancel callback is asked, and closing the store ends it. One that is not open is
 * GRAVITON_ERROR_INVALID_ARGUMENT, and so is a directory. `options` may be NULL. `receipt` may be NULL. Blocks.
 */
graviton_status graviton_store_put_fd(const struct graviton_store *store,
                                      int32_t fd,
                                      const struct graviton_put_options *options,
                                      struct graviton_put_receipt *receipt,
                                      struct graviton_error **error);

/**
 * Puts the content of a file: `path` of `path_length` bytes, in any encoding. A FIFO works as graviton_store_put_fd has it.
 * One that is not there is GRAVITON_ERROR_NOT_FOUND, a directory GRAVITON_ERROR_INVALID_ARGUMENT. `options` may be NULL.
 * `receipt` may be NULL. Blocks.
 */
graviton_status graviton_store_put_path(const struct graviton_store *store,
                                        const char *path,
                                        size_t path_length,
                                        const struct graviton_put_options *options,
                                        struct graviton_put_receipt *receipt,
                                        struct graviton_error **error);

/**
 * Puts what a callback gives, until it gives nothing. `userdata` may be NULL. `options` may be NULL. `receipt` may be NULL.
 * A callback that aborts stores nothing. Blocks.
 */
graviton_status graviton_store_put_callback(const struct graviton_store *store,
                                            graviton_read_callback read,
                                            void *userdata,
                                            const struct graviton_put_options *options,
                                            struct graviton_put_receipt *receipt,
                                            struct graviton_error **error);

/**
 * Gets a whole blob into `bytes` of `capacity` bytes, which must be at least the `size` in its id (otherwise it is
 * GRAVITON_ERROR_INVALID_ARGUMENT), and its length into `*count`. `bytes` may be NULL if `capacity` is 0. `options` may be
 * NULL. `count` may be NULL. When the progress callback is told of bytes, they are there. After an error the content of
 * `bytes` is undefined. Blocks.
 */
graviton_status graviton_store_get(const struct graviton_store *store,
                                   const struct graviton_blob_id *id,
                                   uint8_t *bytes,
                                   size_t capacity,
                                   const struct graviton_get_options *options,
                                   size_t *count,
                                   struct graviton_error **error);

/**
 * Writes a whole blob to a file descriptor at its place, and does not close it. A pipe, socket or device works, also in
 * non-blocking mode; while it takes nothing, the cancel callback is asked, and closing the store ends it. One whose other
 * end is gone raises SIGPIPE as any write does; one that is not open is GRAVITON_ERROR_INVALID_ARGUMENT, and so is a
 * directory. After an error some bytes may have been written, and none that is not the blob's. `options` may be NULL.
 * Blocks.
 */
graviton_status graviton_store_get_fd(const struct graviton_store *store,
                                      const struct graviton_blob_id *id,
                                      int32_t fd,
                                      const struct graviton_get_options *options,
                                      struct graviton_error **error);

/**
 * Reads up to `length` bytes of a blob from `offset` on into `bytes`, and their number into `*count`: less than `length` only
 * if the blob ends before. An `offset` behind the end is GRAVITON_ERROR_RANGE_NOT_SATISFIABLE. Touches only the blocks that
 * hold them. For more than one range of a blob, graviton_reader_read_at is faster. `bytes` may be NULL if `length` is 0.
 * Blocks.
 */
graviton_status graviton_store_read_range(const struct graviton_store *store,
                                          const struct graviton_blob_id *id,
                                          uint64_t offset,
                                          uint8_t *bytes,
                                          size_t length,
                                          size_t *count,
                                          struct graviton_error **error);

/**
 * Opens a writer. With `expected`, only content with this id is committed, and any other is GRAVITON_ERROR_DIGEST_MISMATCH;
 * `expected` may be NULL. Free it with graviton_writer_free, before or after the store. Blocks.
 */
graviton_status graviton_writer_open(const struct graviton_store *store,
                                     const struct graviton_blob_id *expected,
                                     struct graviton_writer **writer,
                                     struct graviton_error **error);

/**
 * Takes the next `length` bytes of the blob: all of them, or it fails. `bytes` may be NULL if `length` is 0. After an error
 * every later call on this writer gives it again, and the writer can only be freed; but a wrong argument, or use by two
 * threads at once, leaves it as it was. Blocks while the store is slower than the caller.
 */
graviton_status graviton_writer_write(struct graviton_writer *writer,
                                      const uint8_t *bytes,
                                      size_t length,
                                      struct graviton_error **error);

/**
 * How many bytes were written so far, into `*size`. Never blocks.
 */
graviton_status graviton_writer_size(const struct graviton_writer *writer,
                                     uint64_t *size,
                                     struct graviton_error **error);

/**
 * Commits the blob: it is visible, and as durable as the store is configured, when this returns. The writer can then only be
 * freed; writing on is GRAVITON_ERROR_INVALID_ARGUMENT. `receipt` may be NULL. Blocks.
 */
graviton_status graviton_writer_finish(struct graviton_writer *writer,
                                       struct graviton_put_receipt *receipt,
                                       struct graviton_error **error);

/**
 * Frees a writer; what it had not finished is aborted and leaves nothing. NULL is fine. In a forked child it only
 * forgets the handle.
 */
void graviton_writer_free(struct graviton_writer *writer);

/**
 * Opens a blob to be read; GRAVITON_ERROR_NOT_FOUND if it is not there. Free it with graviton_reader_free, before or after
 * the store. Blocks.
 */
graviton_status graviton_reader_open(const struct graviton_store *store,
                                     const struct graviton_blob_id *id,
                                     struct graviton_reader **reader,
                                     struct graviton_error **error);

/**
 * Reads the next bytes into `buffer` of `capacity` bytes, and their number into `*count`: 0 only at the end of the blob (or
 * for a `capacity` of 0), and otherwise, like read(2), at least one and often fewer than there is room for. `buffer` may be
 * NULL if `capacity` is 0. After an error every later call that uses the position gives it again; but a wrong argument, or
 * use by two threads at once, leaves it as it was. Blocks.
 */
graviton_status graviton_reader_read(struct graviton_reader *reader,
                                     uint8_t *buffer,
                                     size_t capacity,
                                     size_t *count,
                                     struct graviton_error **error);

/**
 * Reads bytes at an offset into `buffer` of `length` bytes, and their number into `*count`: less than `length` only at the
 * end of the blob, 0 behind it. Neither uses nor moves the position, like pread(2), and an error leaves the reader as it was.
 * From any number of threads at once. `buffer` may be NULL if `length` is 0. Blocks.
 */
graviton_status graviton_reader_read_at(const struct graviton_reader *reader,
                                        uint64_t offset,
                                        uint8_t *buffer,
                                        size_t length,
                                        size_t *count,
                                        struct graviton_error **error);

/**
 * Moves the position to `offset` bytes from `whence` (GRAVITON_SEEK_...), and gives the new one in `*position`, counted from
 * the start. Behind the end is allowed, and nothing is read there; before the start is GRAVITON_ERROR_INVALID_ARGUMENT.
 * `position` may be NULL. Costs nothing by itself. Never blocks.
 */
graviton_status graviton_reader_seek(struct graviton_reader *reader,
                                     int64_t offset,
                                     int32_t whence,
                                     uint64_t *position,
                                     struct graviton_error **error);

/**
 * The position, in bytes from the start of the blob, into `*position`. Never blocks.
 */
graviton_status graviton_reader_tell(const struct graviton_reader *reader,
                                     uint64_t *position,
                                     struct graviton_error **error);

/**
 * The size of the blob in bytes, into `*size`. From any thread. Never blocks.
 */
graviton_status graviton_reader_size(const struct graviton_reader *reader,
                                     uint64_t *size,
                                     struct graviton_error **error);

/**
 * The id of the blob, into `*id`. From any thread. Never blocks.
 */
graviton_status graviton_reader_id(const struct graviton_reader *reader,
                                   struct graviton_blob_id *id,
                                   struct graviton_error **error);

/**
 * Frees a reader. NULL is fine. Not while another thread uses it. In a forked child it only forgets the handle.
 */
void graviton_reader_free(struct graviton_reader *reader);

/**
 * Begins a walk over all live blobs, or those behind `after`, ordered by algorithm, digest and size. Blobs that come or go
 * meanwhile are met or not. `after` may be NULL. Free it with graviton_list_free. Never blocks.
 */
graviton_status graviton_list_open(const struct graviton_store *store,
                                   const struct graviton_blob_id *after,
                                   struct graviton_list **list,
                                   struct graviton_error **error);

/**
 * The next blob: `*found` becomes 1 and `stat` is filled in, or `*found` becomes 0 at the end and `stat` stays as it is.
 * After an error it can be called again. Blocks.
 */
graviton_status graviton_list_next(struct graviton_list *list,
                                   struct graviton_blob_stat *stat,
                                   int32_t *found,
                                   struct graviton_error **error);

/**
 * Frees a walk. NULL is fine.
 */
void graviton_list_free(struct graviton_list *list);

/**
 * Begins a walk over the blocks of a blob in order, from the one that holds the byte at `from` on; GRAVITON_ERROR_NOT_FOUND
 * if the blob is not there. Free it with graviton_manifest_free. Blocks.
 */
graviton_status graviton_manifest_open(const struct graviton_store *store,
                                       const struct graviton_blob_id *id,
                                       uint64_t from,
                                       struct graviton_manifest **manifest,
                                       struct graviton_error **error);

/**
 * The next block: `*found` becomes 1 and `entry` is filled in, or `*found` becomes 0 at the end and `entry` stays as it is.
 * After an error it can be called again. Blocks.
 */
graviton_status graviton_manifest_next(struct graviton_manifest *manifest,
                                       struct graviton_manifest_entry *entry,
                                       int32_t *found,
                                       struct graviton_error **error);

/**
 * Frees a walk. NULL is fine.
 */
void graviton_manifest_free(struct graviton_manifest *manifest);

/**
 * Reads a whole block, verified, into `bytes` of `capacity` bytes, which must be at least the `size` in its key (otherwise
 * it is GRAVITON_ERROR_INVALID_ARGUMENT), and its length into `*count`; GRAVITON_ERROR_NOT_FOUND if it is not stored. For
 * programs that compare stores or look into manifests; blobs are read with a graviton_reader. A block that no blob refers to
 * may be collected at any moment. `count` may be NULL. After an error the content of `bytes` is undefined. Blocks.
 */
graviton_status graviton_store_read_block(const struct graviton_store *store,
                                          const struct graviton_block_key *key,
                                          uint8_t *bytes,
                                          size_t capacity,
                                          size_t *count,
                                          struct graviton_error **error);

/**
 * Deletes what nothing refers to: the blocks of blobs that were deleted longer than the grace ago, and of puts whose process
 * is gone. Any number of them may run at once, beside everything else. `options` may be NULL. `callback` may be NULL.
 * `userdata` may be NULL. `report` may be NULL. Blocks, for long.
 */
graviton_status graviton_store_gc(const struct graviton_store *store,
                                  const struct graviton_gc_options *options,
                                  graviton_gc_callback callback,
                                  void *userdata,
                                  struct graviton_gc_report *report,
                                  struct graviton_error **error);

/**
 * Looks whether everything is there and intact, and tells of what is not. Findings are no error: `report->clean` says whether
 * there are any that hurt. `options` may be NULL. `callback` may be NULL. `userdata` may be NULL. `report` may be NULL.
 * Blocks, for long.
 */
graviton_status graviton_store_verify(const struct graviton_store *store,
                                      const struct graviton_verify_options *options,
                                      graviton_verify_callback callback,
                                      void *userdata,
                                      struct graviton_verify_report *report,
                                      struct graviton_error **error);

/**
 * Brings blobs with their manifests from another store of any kind, verified; moves only blocks that are missing here. What
 * was interrupted can be called again. `options` may be NULL. `callback` may be NULL. `userdata` may be NULL. `report` may be
 * NULL. Blocks, for long.
 */
graviton_status graviton_store_copy_from(const struct graviton_store *store,
                                         const struct graviton_store *other,
                                         const struct graviton_copy_options *options,
                                         graviton_copy_callback callback,
                                         void *userdata,
                                         struct graviton_copy_report *report,
                                         struct graviton_error **error);

/**
 * Looks at every block that a live blob needs, and replaces those that are missing or damaged by those of another store,
 * after verifying them. `callback` may be NULL. `userdata` may be NULL. `report` may be NULL. Blocks, for long.
 */
graviton_status graviton_store_repair_from(const struct graviton_store *store,
                                           const struct graviton_store *other,
                                           graviton_repair_callback callback,
                                           void *userdata,
                                           struct graviton_repair_report *report,
                                           struct graviton_error **error);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

/** The version of this header as text. */
#define GRAVITON_VERSION "0.2.0"

/** The text of a literal and its length, as two arguments: `graviton_store_open(GRAVITON_LITERAL("./data"), ...)`. */
#define GRAVITON_LITERAL(text) ("" text), (sizeof(text) - 1)

/** Initialises a graviton_blob_stat. */
#define GRAVITON_BLOB_STAT_INIT { sizeof(graviton_blob_stat), { 0, 0, 0, { 0 } }, 0, 0, { 0 } }

/** Initialises a graviton_store_stats. */
#define GRAVITON_STORE_STATS_INIT { sizeof(graviton_store_stats), 0, 0, 0, 0, 0, 0, 0, 0.0 }

/** Initialises a graviton_put_receipt. */
#define GRAVITON_PUT_RECEIPT_INIT { sizeof(graviton_put_receipt), { 0, 0, 0, { 0 } }, 0, 0, 0, 0, 0 }

/** Initialises a graviton_put_options: any content, and no callback. */
#define GRAVITON_PUT_OPTIONS_INIT { sizeof(graviton_put_options), NULL, NULL, NULL }

/** Initialises a graviton_get_options: no callback. */
#define GRAVITON_GET_OPTIONS_INIT { sizeof(graviton_get_options), NULL, NULL }

/** Initialises a graviton_gc_options: the configured grace, and no limits. */
#define GRAVITON_GC_OPTIONS_INIT { sizeof(graviton_gc_options), 0, 0, 0, 0, 0, 0 }

/** Initialises a graviton_gc_report. */
#define GRAVITON_GC_REPORT_INIT { sizeof(graviton_gc_report), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.0, 0, 0 }

/** Initialises a graviton_copy_options: all blobs. */
#define GRAVITON_COPY_OPTIONS_INIT { sizeof(graviton_copy_options), NULL, 0 }

/** Initialises a graviton_copy_report. */
#define GRAVITON_COPY_REPORT_INIT { sizeof(graviton_copy_report), 0, 0, 0, 0, 0, 0.0, 0, 0 }

/** Initialises a graviton_repair_report. */
#define GRAVITON_REPAIR_REPORT_INIT { sizeof(graviton_repair_report), 0, 0, 0, 0, 0.0, 0, 0 }

/** Initialises a graviton_verify_options: everything, by lengths. */
#define GRAVITON_VERIFY_OPTIONS_INIT { sizeof(graviton_verify_options), 0, 0, NULL, 0, 0, NULL, 0 }

/** Initialises a graviton_verify_report. */
#define GRAVITON_VERIFY_REPORT_INIT { sizeof(graviton_verify_report), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.0, 0, 0, { 0 } }

#endif  /* GRAVITON_H */
