/*
 * graviton.h: the C interface of Graviton, an embeddable content-addressed blob store.
 *
 * A stream is cut into blocks at boundaries that its content decides, and each block is stored once under its
 * hash. The blob is read back verified, as a whole or any range of it, under an id that is the hash of its
 * content.
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
 * Generated from graviton-ffi by cbindgen; change it there.
 *
 * ERRORS
 *   A function that can fail returns a graviton_status: GRAVITON_OK (0), or a negative GRAVITON_ERROR_....
 *   Its last argument `error` may be NULL. Otherwise every call writes `*error`: NULL on success, and on
 *   failure an error that the caller frees with graviton_error_free. The previous value is overwritten and
 *   not freed. There is no thread-local or global "last error". Results are written on success only. Every
 *   function can return GRAVITON_ERROR_INVALID_ARGUMENT: for NULL where it is not allowed, a misaligned
 *   pointer (a misaligned `error` is not written), a flag that is neither 0 nor 1, an unknown enumeration
 *   value, a length above PTRDIFF_MAX, a `struct_size` that no version has, an option that the library is too
 *   old for, or a handle that two threads use where only one may. The call then did nothing. Every function
 *   on a handle can return GRAVITON_ERROR_CLOSED and GRAVITON_ERROR_FORKED, and GRAVITON_ERROR_CANCELLED
 *   where there is a callback. A function documents the other errors that it often returns; any may fail as
 *   its backends do (GRAVITON_ERROR_NO_SPACE, GRAVITON_ERROR_BACKEND_UNAVAILABLE, ...).
 *   GRAVITON_ERROR_INTERNAL is a bug of the library: a panic ends there and never reaches the program.
 *
 * OWNERSHIP
 *   _new, _open and _from_... return a handle in their last result; _free takes it back. _free accepts NULL,
 *   and the order does not matter: readers, writers and iterators keep what they need of the store. All other
 *   functions borrow their arguments for the length of the call, unless they say otherwise. Freeing a handle
 *   twice, using it after it was freed, and freeing it while another thread or the call around a callback
 *   uses it are errors that the library cannot detect. A misaligned pointer is not freed.
 *
 * TEXT, BYTES AND STRUCTURES
 *   Text and bytes are passed as pointer and length in bytes; NULL with 0 is empty. GRAVITON_LITERAL("...")
 *   gives both for a literal. Text is UTF-8; paths are any bytes but NUL. Text that the library returns is
 *   NUL-terminated. graviton_blob_id, graviton_block_key and graviton_manifest_entry never change. Other
 *   structures begin with `struct_size`, which the _INIT macros set. Later versions may add fields at their
 *   end, where 0 means the behaviour before the field existed. So a program works with a later library, which
 *   takes missing fields for 0 and fills in the fields that the program has. It works with an earlier library
 *   as long as the fields that this one does not know are 0; in reports they stay unchanged. Fields called
 *   `reserved` are 0. Flags and enumeration values are int32_t.
 *
 * THREADS
 *   "Blocks" in a description means that the call may wait for disks, networks or other threads. Any thread
 *   may call any function. A thread of an event loop should not: the call would hold it up.
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
 *   "One at a time" is checked: the second thread gets GRAVITON_ERROR_INVALID_ARGUMENT, and the handle is
 *   unaffected. graviton_store_close may be called beside any other call: running calls succeed or return
 *   GRAVITON_ERROR_CLOSED.
 *
 * CALLBACKS
 *   take the program's pointer first, and run on the thread that made the call, only until it returns (a
 *   cancel callback: on any thread that uses the handle). They return 0 to continue. Any other value ends the
 *   call with GRAVITON_ERROR_CANCELLED; graviton_error_callback_code returns the value. They may call the
 *   library, with the same store too; only the cancel callback of the handle that they use can end those
 *   calls. They may read results that are filled in so far. They must not change data that the call reads,
 *   and must not free the handle of the call. They must return: a C++ exception or longjmp out of a callback
 *   is undefined behaviour.
 *
 * FORK
 *   In a child process, handles that the parent opened return GRAVITON_ERROR_FORKED. Freeing them there only
 *   forgets them: their locks and threads belong to the parent. A child may open stores of its own, but not
 *   the SQLite file that its parent had open at the fork. Configurations, ids and errors work in the child.
 *
 * MEMORY AND STACK
 *   A call that finds no memory aborts the process, as Rust's allocator does; SQLite's own lack of memory is
 *   GRAVITON_ERROR_BACKEND_UNAVAILABLE. A put uses up to 64 MiB (graviton_config_set_put_window), a reader
 *   about four blocks. A thread that calls the library needs 256 KiB of stack: 64 KiB were enough in trials,
 *   32 KiB were not.
 *
 * NOT INCLUDED
 *   Sessions of the engine, by which servers accept blocks from clients that cut streams themselves; such
 *   clients use HTTP. Asynchronous calls: a call blocks its thread, and can be cancelled. Listing by pages,
 *   which the iterators do. Sizes and sums that can be computed from other fields of a report. Block stores
 *   and databases by themselves.
 *
 * CLEANING UP
 *   The library starts threads when a store is first opened, and never ends them. It installs no signal
 *   handlers, and reads no environment variable unless asked. Do not dlclose it.
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
#define GRAVITON_VERSION_NUMBER 2000

/**
 * For a progress callback: the total size is unknown.
 */
#define GRAVITON_SIZE_UNKNOWN 18446744073709551615ull

/**
 * A callback of gc, repack, verify, copy_from or repair_from returns this to stop the work early: the call
 * then succeeds, and its report says that it is not complete. Any other value but 0 ends the call with
 * GRAVITON_ERROR_CANCELLED.
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
 * The largest size of a block in bytes: 16 MiB.
 */
#define GRAVITON_BLOCK_SIZE_MAX 16777216

/**
 * The size of a buffer for the text of any blob id or block key with its NUL, in bytes.
 */
#define GRAVITON_BLOB_ID_TEXT_MAX 92

/**
 * The size of a buffer for the text of any chunker with its NUL, in bytes.
 */
#define GRAVITON_CHUNKER_TEXT_MAX 544

/**
 * The size of a buffer for a failure in a report with its NUL, in bytes; a longer one is cut off.
 */
#define GRAVITON_FAILURE_TEXT_MAX 512

/**
 * The size of a buffer for any verification cursor with its NUL, in bytes.
 */
#define GRAVITON_VERIFY_CURSOR_MAX 128

/**
 * For graviton_reader_seek: the offset is from the start of the blob. Equal to SEEK_SET of C.
 */
#define GRAVITON_SEEK_SET 0

/**
 * For graviton_reader_seek: the offset is from the position. Equal to SEEK_CUR of C.
 */
#define GRAVITON_SEEK_CUR 1

/**
 * For graviton_reader_seek: the offset is from the end of the blob. Equal to SEEK_END of C.
 */
#define GRAVITON_SEEK_END 2

/**
 * For graviton_gc_options: no grace period; all deleted blobs are collected.
 */
#define GRAVITON_GC_NO_GRACE -1

/**
 * An event: progress.
 */
#define GRAVITON_VERIFY_PROGRESS 1

/**
 * An event: a block that live blobs need is bad.
 */
#define GRAVITON_VERIFY_BLOCK 2

/**
 * An event: the manifest of a blob is broken.
 */
#define GRAVITON_VERIFY_MANIFEST 3

/**
 * An event: the database is damaged.
 */
#define GRAVITON_VERIFY_DATABASE 4

/**
 * An event: a block without a row, of a running put or garbage.
 */
#define GRAVITON_VERIFY_UNREFERENCED 5

/**
 * An event: a pack without a row. `text` is its name, `length` its bytes.
 */
#define GRAVITON_VERIFY_PACK 6

/**
 * An event: a record of a pack without a row cannot be used, or such a pack belongs to another store.
 * `text` is the name of the pack and the defect, `length` the offset of the record.
 */
#define GRAVITON_VERIFY_RECORD 7

/**
 * No damage: for events that are not about a bad block.
 */
#define GRAVITON_DAMAGE_NONE 0

/**
 * The block is missing.
 */
#define GRAVITON_DAMAGE_MISSING 1

/**
 * The length of the block does not match its key.
 */
#define GRAVITON_DAMAGE_WRONG_LENGTH 2

/**
 * The bytes of the block do not match its key.
 */
#define GRAVITON_DAMAGE_CORRUPT 3

/**
 * The location and the settings of a store: names and values as in the environment (graviton_setting_name
 * lists them). Owned; free it with graviton_config_free. Stores that were opened with it do not need it. One
 * thread at a time.
 */
typedef struct graviton_config graviton_config;

/**
 * Why a call failed. Immutable: any number of threads may read it. Free it with graviton_error_free.
 */
typedef struct graviton_error graviton_error;

/**
 * An iterator over the blobs of a store. Owned; free it with graviton_list_free. One thread at a time: a
 * second one gets GRAVITON_ERROR_INVALID_ARGUMENT.
 */
typedef struct graviton_list graviton_list;

/**
 * An iterator over the blocks of a blob. Owned; free it with graviton_manifest_free. One thread at a time: a
 * second one gets GRAVITON_ERROR_INVALID_ARGUMENT.
 */
typedef struct graviton_manifest graviton_manifest;

/**
 * A blob being read: verified bytes. Owned; free it with graviton_reader_free. Any number of threads may
 * call graviton_reader_read_at at once. Calls that use the position are for one thread at a time, beside
 * those; a second thread gets GRAVITON_ERROR_INVALID_ARGUMENT. It works for the grace period after the blob
 * was deleted.
 */
typedef struct graviton_reader graviton_reader;

/**
 * An open store. Owned; free it with graviton_store_free. Any number of threads may use it at once, and any
 * number of processes may have the same store open. Readers, writers and iterators keep what they need of
 * it: free in any order.
 */
typedef struct graviton_store graviton_store;

/**
 * A blob being written. Owned; free it with graviton_writer_free, which aborts an unfinished blob. One
 * thread at a time: a second one gets GRAVITON_ERROR_INVALID_ARGUMENT.
 */
typedef struct graviton_writer graviton_writer;

/**
 * The result of a call: GRAVITON_OK, or one of the negative GRAVITON_ERROR_.... Numbers are never reused; a
 * later version may add more.
 */
typedef int32_t graviton_status;

/**
 * The name of a blob: the digest and length of its whole content. Plain data of a fixed size that will never
 * grow; copy and keep it like a number. Two ids are equal if all their bytes are.
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
 * The name of a block: its digest and length. Plain data like graviton_blob_id.
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
 * Decides about every 50 ms, while a call waits for a network, disk, pipe or socket, whether the call
 * continues. It is not called by calls that end sooner or never block, while the program's own callbacks
 * run, or by calls that those make with a handle that has no cancel callback. It runs on the thread that
 * makes the call, so on several at once if several use the handle. Returns 0 to continue; any other value
 * ends the call with GRAVITON_ERROR_CANCELLED, and graviton_error_callback_code gives the value. It must be
 * quick, must use neither the handle nor the buffers of the call, and must return: no exception, no longjmp.
 */
typedef int32_t (*graviton_cancel_callback)(void *userdata);

/**
 * The metadata of a blob. Set `struct_size` before a call, with GRAVITON_BLOB_STAT_INIT.
 */
typedef struct graviton_blob_stat {
    /**
     * sizeof(graviton_blob_stat).
     */
    size_t struct_size;
    /**
     * Its id.
     */
    struct graviton_blob_id id;
    /**
     * The number of its blocks.
     */
    uint64_t blocks;
    /**
     * The time of the put, in UTC; as a number, in milliseconds since 1970-01-01.
     */
    int64_t created_at_ms;
    /**
     * The chunker that cut it (GRAVITON_CHUNKER). NUL-terminated.
     */
    char chunker[GRAVITON_CHUNKER_TEXT_MAX];
} graviton_blob_stat;

/**
 * The totals of a store. Set `struct_size` before a call, with GRAVITON_STORE_STATS_INIT.
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
     * Bytes of stored blocks that neither a live blob nor a running put references. A collection without a
     * grace period frees these, and blocks of failed and aborted puts, which only a dry run counts.
     */
    uint64_t reclaimable_bytes;
    /**
     * Bytes of blobs for each stored byte; 1 for an empty store.
     */
    double dedup_ratio;
    /**
     * Blocks of all manifests together, those of deleted blobs included; a block counts as often as it
     * occurs. Each takes about 100 bytes of the database.
     */
    uint64_t references;
    /**
     * How full the index of the fullest directory of blocks is, from 0 to 1: close to 1 a new block may find
     * no place there, however much space is free. It does not go down after deletions, nor at once after the
     * directory was given room for more. 0 where no limit is known, and for blocks in S3.
     */
    double directory_share;
    /**
     * Packs that the database knows. Their headers of 64 bytes each, and the bytes of the next five fields,
     * are the length of their files.
     */
    uint64_t packs;
    /**
     * Bytes of their records that are used, with the headers of the records.
     */
    uint64_t pack_live_bytes;
    /**
     * Bytes of their records that nothing uses and that take space. A collection moves what is live out of
     * packs with many of them.
     */
    uint64_t pack_dead_bytes;
    /**
     * Bytes of such records that take no space any more: holes were punched there.
     */
    uint64_t pack_punched_bytes;
    /**
     * Bytes that the next collections give back: of records that were released, and of packs that nothing
     * uses and that wait for the end of the grace period.
     */
    uint64_t pack_pending_bytes;
    /**
     * Bytes that nothing uses of packs that are not sealed: space that is reserved, records of running puts,
     * and dead ones.
     */
    uint64_t pack_open_bytes;
    /**
     * Packs that the database does not know, as a restored one does not. A verification lists them.
     */
    uint64_t unknown_packs;
    /**
     * The sum of their lengths in bytes.
     */
    uint64_t unknown_pack_bytes;
} graviton_store_stats;

/**
 * Reports the progress of a put or get: `done` of `total` bytes; `total` may be GRAVITON_SIZE_UNKNOWN.
 * Called on the thread that made the call, every few KiB to some MiB. Returns 0 to continue; any other value
 * aborts with GRAVITON_ERROR_CANCELLED and stores nothing, and graviton_error_callback_code returns the
 * value. It may call the library, with the same store too, and must return: no exception, no longjmp.
 */
typedef int32_t (*graviton_progress_callback)(void *userdata, uint64_t done, uint64_t total);

/**
 * Options of a put. Initialise it with GRAVITON_PUT_OPTIONS_INIT, then set fields.
 */
typedef struct graviton_put_options {
    /**
     * sizeof(graviton_put_options).
     */
    size_t struct_size;
    /**
     * The id that the content must have; other content is GRAVITON_ERROR_DIGEST_MISMATCH and stores nothing.
     * NULL: any content.
     */
    const struct graviton_blob_id *expected;
    /**
     * The progress callback, or NULL.
     */
    graviton_progress_callback progress;
    /**
     * The first argument of the callback.
     */
    void *progress_userdata;
} graviton_put_options;

/**
 * The result of a put. Set `struct_size` before a call, with GRAVITON_PUT_RECEIPT_INIT.
 */
typedef struct graviton_put_receipt {
    /**
     * sizeof(graviton_put_receipt).
     */
    size_t struct_size;
    /**
     * The id of the content.
     */
    struct graviton_blob_id id;
    /**
     * The number of blocks of the content.
     */
    uint64_t blocks;
    /**
     * The number of its blocks that were new to the store and were written.
     */
    uint64_t fresh_blocks;
    /**
     * The size of those in bytes.
     */
    uint64_t fresh_bytes;
    /**
     * 1 if the blob is new; 0 if it already existed.
     */
    int32_t created;
    /**
     * 0.
     */
    uint32_t reserved;
    /**
     * The bytes that they take where they are stored, after compression.
     */
    uint64_t fresh_stored_bytes;
} graviton_put_receipt;

/**
 * Provides the next bytes of a blob: writes up to `capacity` bytes to `buffer` and their number to `*count`;
 * 0 is the end of the blob. Called on the thread that made the call. Returns 0; any other value aborts with
 * GRAVITON_ERROR_CANCELLED and stores nothing, and graviton_error_callback_code returns the value. It may
 * call the library, with the same store too, and must return: no exception, no longjmp.
 */
typedef int32_t (*graviton_read_callback)(void *userdata, uint8_t *buffer, size_t capacity, size_t *count);

/**
 * Options of a get. Initialise it with GRAVITON_GET_OPTIONS_INIT, then set fields.
 */
typedef struct graviton_get_options {
    /**
     * sizeof(graviton_get_options).
     */
    size_t struct_size;
    /**
     * The progress callback, or NULL.
     */
    graviton_progress_callback progress;
    /**
     * The first argument of the callback.
     */
    void *progress_userdata;
} graviton_get_options;

/**
 * The position of a block in a blob. Plain data of a fixed size that will never grow.
 */
typedef struct graviton_manifest_entry {
    /**
     * Where the block starts in the blob, in bytes.
     */
    uint64_t offset;
    /**
     * The block; its size is in the key.
     */
    struct graviton_block_key key;
} graviton_manifest_entry;

/**
 * Options of a collection. Initialise it with GRAVITON_GC_OPTIONS_INIT, then set fields.
 */
typedef struct graviton_gc_options {
    /**
     * sizeof(graviton_gc_options).
     */
    size_t struct_size;
    /**
     * The grace period in milliseconds; blobs that were deleted before it are collected. 0: as configured
     * (GRAVITON_GC_GRACE). GRAVITON_GC_NO_GRACE: all deleted blobs.
     */
    int64_t grace_ms;
    /**
     * The time limit in milliseconds; no step begins after it. 0: no limit.
     */
    uint64_t max_time_ms;
    /**
     * The maximum number of blocks to delete. 0: no limit.
     */
    uint64_t max_blocks;
    /**
     * The approximate maximum number of bytes to delete. 0: no limit.
     */
    uint64_t max_bytes;
    /**
     * The maximum number of blocks to delete in a second. 0: no limit.
     */
    uint32_t blocks_per_second;
    /**
     * 1: report only what would be deleted. 0: delete it.
     */
    int32_t dry_run;
} graviton_gc_options;

/**
 * The report of a collection: its work or, after a dry run, the work that it would do. Set `struct_size`
 * before a call, with GRAVITON_GC_REPORT_INIT.
 */
typedef struct graviton_gc_report {
    /**
     * sizeof(graviton_gc_report).
     */
    size_t struct_size;
    /**
     * Puts whose writer is gone.
     */
    uint64_t abandoned_puts;
    /**
     * Deleted blobs that were collected, including those of abandoned and failed puts.
     */
    uint64_t blobs;
    /**
     * The length of `named`, which the callback gets: the ids of some of them; only after a dry run.
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
     * Blocks that lost a reference and are kept because another one remains.
     */
    uint64_t kept_referenced;
    /**
     * Blocks that are kept for now because another collection is about to delete them, or was before it
     * died, or because the server did not answer.
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
     * The duration in seconds.
     */
    double seconds;
    /**
     * 1 if it was a dry run, otherwise 0.
     */
    int32_t dry_run;
    /**
     * 1 if nothing is left to do; 0 if a limit or the caller stopped it.
     */
    int32_t complete;
    /**
     * Why the first block is kept that could not be deleted or whose deletion got no answer, or why the
     * collection failed. Empty if nothing did. NUL-terminated.
     */
    char failure[GRAVITON_FAILURE_TEXT_MAX];
    /**
     * Blocks and packs on a filesystem without a row in the database, among some that a complete collection
     * looked at: of running puts, or left by killed ones. `verify` with `adopt` hands them to the next
     * collection.
     */
    uint64_t unreferenced;
    /**
     * The sum of their sizes in bytes.
     */
    uint64_t unreferenced_bytes;
    /**
     * Times of deletions, leases and deletions under way that lay further ahead than they can: a clock was
     * ahead when they were written. The collection brought them back, so that nothing waits for that clock.
     */
    uint64_t future_times;
} graviton_gc_report;

/**
 * Reports the progress of a collection after each step, and at its end the final report. `named` are the
 * `report->named_count` blobs that a dry run lists, NULL if there are none; both are valid until the
 * callback returns. Called on the thread that called graviton_store_gc. Returns 0 to continue, GRAVITON_STOP
 * to stop early, or any other value to abort with GRAVITON_ERROR_CANCELLED; the value of the last call is
 * ignored. It may call the library, with the same store too, and must return: no exception, no longjmp.
 */
typedef int32_t (*graviton_gc_callback)(void *userdata,
                                        const struct graviton_gc_report *report,
                                        const struct graviton_blob_id *named);

/**
 * The report of a repack. Set `struct_size` before a call, with GRAVITON_REPACK_REPORT_INIT.
 */
typedef struct graviton_repack_report {
    /**
     * sizeof(graviton_repack_report).
     */
    size_t struct_size;
    /**
     * Blocks that were moved into the other layout.
     */
    uint64_t blocks;
    /**
     * The sum of their sizes in bytes.
     */
    uint64_t bytes;
    /**
     * Stored blocks that were there already when it began.
     */
    uint64_t present;
    /**
     * Blocks that were found damaged. They are marked as not stored, so that the next put of them writes
     * them again.
     */
    uint64_t damaged;
    /**
     * Blocks that were left where they are because a running put uses them, or because they were moved or
     * deleted meanwhile.
     */
    uint64_t skipped;
    /**
     * Stored blocks that are not there yet.
     */
    uint64_t remaining;
    /**
     * Files or objects of blocks in packs that an earlier repack had left, and that were removed.
     */
    uint64_t leftovers;
    /**
     * Files or objects of moved blocks that could not be removed; a later collection tries again.
     */
    uint64_t kept_failed;
    /**
     * The duration in seconds.
     */
    double seconds;
    /**
     * 1 if every stored block is there; 0 if some remain, or the caller stopped it.
     */
    int32_t complete;
    /**
     * 0.
     */
    uint32_t reserved;
    /**
     * Why the first file is kept that could not be removed. Empty if there is none. NUL-terminated.
     */
    char failure[GRAVITON_FAILURE_TEXT_MAX];
} graviton_repack_report;

/**
 * Reports the progress of a repack, and at its end the final report, which is valid until the callback
 * returns. Called on the thread that called graviton_store_repack. Returns 0 to continue, GRAVITON_STOP to
 * stop early, or any other value to abort with GRAVITON_ERROR_CANCELLED; the value of the last call is
 * ignored. It may call the library, with the same store too, and must return: no exception, no longjmp.
 */
typedef int32_t (*graviton_repack_callback)(void *userdata, const struct graviton_repack_report *report);

/**
 * Options of a verification. Initialise it with GRAVITON_VERIFY_OPTIONS_INIT, then set fields.
 */
typedef struct graviton_verify_options {
    /**
     * sizeof(graviton_verify_options).
     */
    size_t struct_size;
    /**
     * 1: hash every byte. 0: check only lengths.
     */
    int32_t deep;
    /**
     * 1: hand blocks without a row to the collector. A running put that owns such blocks writes them again.
     * 0: only report them.
     */
    int32_t adopt;
    /**
     * The blobs to verify; none if `id_count` is 0. NULL with an `id_count` of 0: the whole store.
     */
    const struct graviton_blob_id *ids;
    /**
     * The number of ids at `ids`.
     */
    size_t id_count;
    /**
     * The maximum number of bytes to read in a second. 0: no limit.
     */
    uint64_t bytes_per_second;
    /**
     * The `cursor` of an earlier report, to continue there. NULL: from the start.
     */
    const char *from;
    /**
     * The length of `from` in bytes; 0 for the start.
     */
    size_t from_length;
    /**
     * 1: copy blocks that are missing or damaged from packs without a row, after the database was restored
     * from a backup. Only of the whole store. 0: do not look into them.
     */
    int32_t rebuild;
} graviton_verify_options;

/**
 * The report of a verification. Set `struct_size` before a call, with GRAVITON_VERIFY_REPORT_INIT.
 */
typedef struct graviton_verify_report {
    /**
     * sizeof(graviton_verify_report).
     */
    size_t struct_size;
    /**
     * Blobs whose manifests were checked.
     */
    uint64_t blobs;
    /**
     * Blocks that were checked.
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
     * Blocks of live blobs with a wrong length or wrong bytes.
     */
    uint64_t corrupt;
    /**
     * Live blobs with a broken manifest.
     */
    uint64_t broken_manifests;
    /**
     * Problems that the self-check of the database found.
     */
    uint64_t database_problems;
    /**
     * Blocks and packs without a row in the database.
     */
    uint64_t unreferenced;
    /**
     * The sum of their sizes in bytes.
     */
    uint64_t unreferenced_bytes;
    /**
     * The duration in seconds.
     */
    double seconds;
    /**
     * 1 if no live blob is damaged, otherwise 0.
     */
    int32_t clean;
    /**
     * 1 if everything was checked; 0 if the caller stopped it.
     */
    int32_t complete;
    /**
     * The cursor to continue from, if it was stopped early. Otherwise empty. NUL-terminated.
     */
    char cursor[GRAVITON_VERIFY_CURSOR_MAX];
    /**
     * Blocks that were missing or damaged and were copied from packs that the database did not use.
     */
    uint64_t rebuilt;
    /**
     * The sum of their sizes in bytes.
     */
    uint64_t rebuilt_bytes;
    /**
     * Records of unknown packs that could not be used, and packs that belong to another store.
     */
    uint64_t unusable;
} graviton_verify_report;

/**
 * An event of a verification. It and the data that it points to are valid until the callback returns.
 */
typedef struct graviton_verify_event {
    /**
     * sizeof(graviton_verify_event) of the library, which may be more than the program's.
     */
    size_t struct_size;
    /**
     * The kind: GRAVITON_VERIFY_PROGRESS, or a finding. A later version may add more.
     */
    int32_t kind;
    /**
     * For GRAVITON_VERIFY_BLOCK: the damage, one of GRAVITON_DAMAGE_....
     */
    int32_t damage;
    /**
     * For GRAVITON_VERIFY_BLOCK and GRAVITON_VERIFY_UNREFERENCED: the block. For GRAVITON_VERIFY_RECORD: the
     * block that the record says it is of, if it says so. Otherwise all 0.
     */
    struct graviton_block_key block;
    /**
     * For GRAVITON_VERIFY_UNREFERENCED, GRAVITON_VERIFY_PACK and GRAVITON_DAMAGE_WRONG_LENGTH: the actual
     * length. For GRAVITON_VERIFY_RECORD: the offset in the pack.
     */
    uint64_t length;
    /**
     * For GRAVITON_VERIFY_BLOCK: the damaged blobs, up to a thousand of them. For GRAVITON_VERIFY_MANIFEST:
     * the blob. Otherwise NULL.
     */
    const struct graviton_blob_id *blobs;
    /**
     * How many there are at `blobs`.
     */
    size_t blob_count;
    /**
     * For GRAVITON_VERIFY_MANIFEST, GRAVITON_VERIFY_DATABASE and GRAVITON_VERIFY_RECORD: a description, as
     * UTF-8. For GRAVITON_VERIFY_PACK: the name of the pack. Otherwise empty. NUL-terminated.
     */
    const char *text;
    /**
     * For GRAVITON_VERIFY_PROGRESS: the report so far. Otherwise NULL.
     */
    const struct graviton_verify_report *report;
} graviton_verify_event;

/**
 * Reports each finding of a verification, and its progress from time to time. Called on the thread that
 * called graviton_store_verify. Returns 0 to continue, GRAVITON_STOP to stop early with a cursor in the
 * report, or any other value to abort with GRAVITON_ERROR_CANCELLED. It may call the library, with the same
 * store too, and must return: no exception, no longjmp.
 */
typedef int32_t (*graviton_verify_callback)(void *userdata, const struct graviton_verify_event *event);

/**
 * Options of a copy. Initialise it with GRAVITON_COPY_OPTIONS_INIT, then set fields.
 */
typedef struct graviton_copy_options {
    /**
     * sizeof(graviton_copy_options).
     */
    size_t struct_size;
    /**
     * The blobs to copy; none if `id_count` is 0. NULL with an `id_count` of 0: all blobs of the other
     * store.
     */
    const struct graviton_blob_id *ids;
    /**
     * How many of them.
     */
    size_t id_count;
} graviton_copy_options;

/**
 * The report of a copy. Set `struct_size` before a call, with GRAVITON_COPY_REPORT_INIT.
 */
typedef struct graviton_copy_report {
    /**
     * sizeof(graviton_copy_report).
     */
    size_t struct_size;
    /**
     * Blobs that were copied.
     */
    uint64_t blobs;
    /**
     * Blobs that already existed here.
     */
    uint64_t present;
    /**
     * Blocks that were transferred from the other store.
     */
    uint64_t blocks;
    /**
     * The sum of their sizes in bytes.
     */
    uint64_t bytes;
    /**
     * The length of `damaged`, which the callback gets: blobs that are damaged in the other store. They were
     * skipped.
     */
    size_t damaged_count;
    /**
     * The duration in seconds.
     */
    double seconds;
    /**
     * 1 if everything was copied; 0 if the caller stopped it.
     */
    int32_t complete;
    /**
     * 0.
     */
    uint32_t reserved;
} graviton_copy_report;

/**
 * Reports the progress of a copy, and at its end the final report. `damaged` are the `report->damaged_count`
 * blobs that are damaged in the other store, NULL if there are none; both are valid until the callback
 * returns. Called on the thread that called graviton_store_copy_from. Returns 0 to continue, GRAVITON_STOP
 * to stop early, or any other value to abort with GRAVITON_ERROR_CANCELLED; the value of the last call is
 * ignored. It may call the library, with the same stores too, and must return: no exception, no longjmp.
 */
typedef int32_t (*graviton_copy_callback)(void *userdata,
                                          const struct graviton_copy_report *report,
                                          const struct graviton_blob_id *damaged);

/**
 * The report of a repair. Set `struct_size` before a call, with GRAVITON_REPAIR_REPORT_INIT.
 */
typedef struct graviton_repair_report {
    /**
     * sizeof(graviton_repair_report).
     */
    size_t struct_size;
    /**
     * Blocks that were checked.
     */
    uint64_t checked;
    /**
     * Bad blocks that were replaced.
     */
    uint64_t repaired;
    /**
     * The sum of their sizes in bytes.
     */
    uint64_t bytes;
    /**
     * The length of `lost`, which the callback gets: bad blocks that are missing or damaged in the other
     * store too.
     */
    size_t lost_count;
    /**
     * The duration in seconds.
     */
    double seconds;
    /**
     * 1 if every block was checked; 0 if the caller stopped it.
     */
    int32_t complete;
    /**
     * 0.
     */
    uint32_t reserved;
} graviton_repair_report;

/**
 * Reports the progress of a repair, and at its end the final report. `lost` are the `report->lost_count`
 * blocks that are missing or damaged in the other store too, NULL if there are none; both are valid until
 * the callback returns. Called on the thread that called graviton_store_repair_from. Returns 0 to continue,
 * GRAVITON_STOP to stop early, or any other value to abort with GRAVITON_ERROR_CANCELLED; the value of the
 * last call is ignored. It may call the library, with the same stores too, and must return: no exception, no
 * longjmp.
 */
typedef int32_t (*graviton_repair_callback)(void *userdata,
                                            const struct graviton_repair_report *report,
                                            const struct graviton_block_key *lost);

/**
 * Success.
 */
#define GRAVITON_OK 0

/**
 * `invalid-argument`: a parameter is invalid; the call did nothing.
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
 * `digest-mismatch`: the content does not match its id.
 */
#define GRAVITON_ERROR_DIGEST_MISMATCH -4

/**
 * `too-large`: larger than a limit allows.
 */
#define GRAVITON_ERROR_TOO_LARGE -5

/**
 * `range-not-satisfiable`: the range starts beyond the end of the blob.
 */
#define GRAVITON_ERROR_RANGE_NOT_SATISFIABLE -6

/**
 * `unauthorized`: the credentials are missing or wrong.
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
 * `length-required`: a length is required.
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
 * `latched`: an earlier write failed, and this store refuses writes until it is opened again.
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
 * `overloaded`: too many operations at once; trying again may help.
 */
#define GRAVITON_ERROR_OVERLOADED -29

/**
 * `conflict`: something is in another state than the caller requires; the call did nothing.
 */
#define GRAVITON_ERROR_CONFLICT -30

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the library that is running, as text, such as "0.2.0". It is valid for ever. Cannot fail,
 * never blocks.
 */
const char *graviton_version(void);

/**
 * The version of the library that is running, composed like GRAVITON_VERSION_NUMBER. Cannot fail, never
 * blocks.
 */
int32_t graviton_version_number(void);

/**
 * The best size of a buffer for graviton_writer_write and graviton_reader_read, in bytes. Larger ones gain
 * nothing; smaller ones down to a few KiB lose little. Cannot fail, never blocks.
 */
size_t graviton_recommended_buffer_size(void);

/**
 * The stable name of a status, such as "not-found"; "ok" for GRAVITON_OK, NULL for an unknown number. It is
 * valid for ever. Never blocks.
 */
const char *graviton_status_name(graviton_status status);

/**
 * 1 for a status after which the same call may succeed later without a change by the caller, otherwise 0.
 * Never blocks.
 */
int32_t graviton_status_is_retryable(graviton_status status);

/**
 * The number of error codes of this library. A binding can list them with graviton_status_at. Never blocks.
 */
size_t graviton_status_count(void);

/**
 * The error code at an index from 0 to graviton_status_count() - 1, in the order -1, -2, ...; GRAVITON_OK for
 * any other. Never blocks.
 */
graviton_status graviton_status_at(size_t index);

/**
 * The status that the failed call returned: one of GRAVITON_ERROR_.... GRAVITON_OK for NULL. A misaligned
 * pointer is GRAVITON_ERROR_INVALID_ARGUMENT here and counts as NULL in the other functions.
 */
graviton_status graviton_error_code(const struct graviton_error *error);

/**
 * The stable name of the code, such as "not-found"; "ok" for NULL. It is valid for ever.
 */
const char *graviton_error_name(const struct graviton_error *error);

/**
 * The message: the operation, its object, and the reason for the failure. UTF-8, lower case, without a full
 * stop or secrets. Empty for NULL, never NULL. It is valid as long as the error.
 */
const char *graviton_error_message(const struct graviton_error *error);

/**
 * The advice, as UTF-8. Empty if there is none and for NULL, never NULL. It is valid as long as the error.
 */
const char *graviton_error_advice(const struct graviton_error *error);

/**
 * 1 if the same call may succeed later without a change by the caller, otherwise 0. 0 for NULL.
 */
int32_t graviton_error_is_retryable(const struct graviton_error *error);

/**
 * The operating system's errno that caused the failure, otherwise 0. 0 for NULL.
 */
int32_t graviton_error_errno(const struct graviton_error *error);

/**
 * The value by which the program's own callback ended the call (the code is then GRAVITON_ERROR_CANCELLED),
 * otherwise 0. 0 for NULL.
 */
int32_t graviton_error_callback_code(const struct graviton_error *error);

/**
 * Frees an error. NULL is fine.
 */
void graviton_error_free(struct graviton_error *error);

/**
 * Parses `<algo>:<64 lower-case hex digits>:<size in bytes>` of `length` bytes into `id`. Strict: one id has
 * one text. Any other text is GRAVITON_ERROR_INVALID_ID. Never blocks.
 */
graviton_status graviton_blob_id_parse(const char *text,
                                       size_t length,
                                       struct graviton_blob_id *id,
                                       struct graviton_error **error);

/**
 * Writes the text of an id and a NUL into `buffer` of `capacity` bytes, where GRAVITON_BLOB_ID_TEXT_MAX is
 * always enough, and its length without the NUL into `*length`. `buffer` may be NULL if `capacity` is 0, to
 * get only the length. `length` may be NULL. Never blocks.
 */
graviton_status graviton_blob_id_format(const struct graviton_blob_id *id,
                                        char *buffer,
                                        size_t capacity,
                                        size_t *length,
                                        struct graviton_error **error);

/**
 * Computes the id of `length` bytes with this algorithm (GRAVITON_ALGO_...), on this thread. Stores nothing.
 * `bytes` may be NULL if `length` is 0.
 */
graviton_status graviton_blob_id_of(int32_t algo,
                                    const uint8_t *bytes,
                                    size_t length,
                                    struct graviton_blob_id *id,
                                    struct graviton_error **error);

/**
 * Compares two ids in the order of listings (algorithm, digest, size): `*order` becomes -1, 0 or 1. Never
 * blocks.
 */
graviton_status graviton_blob_id_compare(const struct graviton_blob_id *left,
                                         const struct graviton_blob_id *right,
                                         int32_t *order,
                                         struct graviton_error **error);

/**
 * Like graviton_blob_id_parse, for the key of a block: `<algo>:<hex>:<size>`, with a size of 1 to 16 MiB.
 * Never blocks.
 */
graviton_status graviton_block_key_parse(const char *text,
                                         size_t length,
                                         struct graviton_block_key *key,
                                         struct graviton_error **error);

/**
 * Like graviton_blob_id_format, for the key of a block: `<algo>:<hex>:<size>`. `buffer` may be NULL if
 * `capacity` is 0. `length` may be NULL. Never blocks.
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
 * The defaults, with the store in this directory: `path` of `path_length` bytes, in any encoding. Never
 * blocks.
 */
graviton_status graviton_config_for_directory(const char *path,
                                              size_t path_length,
                                              struct graviton_config **config,
                                              struct graviton_error **error);

/**
 * Reads the settings from the environment; the others have their defaults. An invalid variable is
 * GRAVITON_ERROR_CONFIG. Nothing else in this library reads the environment, except for the standard AWS_*
 * variables when blocks are in AWS. No other thread may change the environment meanwhile. Never blocks.
 */
graviton_status graviton_config_from_env(struct graviton_config **config, struct graviton_error **error);

/**
 * Sets one setting, such as "GRAVITON_HASH" to "sha256": both UTF-8, of these lengths in bytes. An unknown
 * name or an invalid value is GRAVITON_ERROR_CONFIG and leaves the configuration unchanged. Never blocks.
 */
graviton_status graviton_config_set(struct graviton_config *config,
                                    const char *name,
                                    size_t name_length,
                                    const char *value,
                                    size_t value_length,
                                    struct graviton_error **error);

/**
 * Writes the value of a setting, or its default, and a NUL into `buffer` of `capacity` bytes, and its length
 * without the NUL into `*length`. A secret reads as an ellipsis. `buffer` may be NULL if `capacity` is 0, to
 * get only the length. `length` may be NULL. A buffer that is too small is GRAVITON_ERROR_INVALID_ARGUMENT,
 * an unknown name GRAVITON_ERROR_CONFIG. Never blocks.
 */
graviton_status graviton_config_get(const struct graviton_config *config,
                                    const char *name,
                                    size_t name_length,
                                    char *buffer,
                                    size_t capacity,
                                    size_t *length,
                                    struct graviton_error **error);

/**
 * Limits the memory of one put, in bytes, for blobs of any size. The default is 64 MiB; a program with many
 * puts at once may set less. The minimum is about three of the largest blocks plus 3 MiB. Never blocks.
 */
graviton_status graviton_config_set_put_window(struct graviton_config *config,
                                               size_t bytes,
                                               struct graviton_error **error);

/**
 * With 1, opening for writing makes a copy of the database the owner of the blocks: a restored backup, a
 * copy in another place, a standby that was promoted. First end everything that uses the other database:
 * from then on, the other one is refused. Not for every opening. The default is 0. Never blocks.
 */
graviton_status graviton_config_take_over(struct graviton_config *config,
                                          int32_t take_over,
                                          struct graviton_error **error);

/**
 * With 1, opening adopts blocks that are already there without a store-id, as the first Graviton server left
 * them. Only for blocks that belong to this database. The default is 0. Never blocks.
 */
graviton_status graviton_config_adopt(struct graviton_config *config,
                                      int32_t adopt,
                                      struct graviton_error **error);

/**
 * Sets the cancel callback of opening with this configuration, and of every call on the store and on its
 * readers, writers and iterators. NULL removes it for stores that are opened later. `userdata` may be NULL;
 * it must stay valid as long as any of those handles is used. Never blocks.
 */
graviton_status graviton_config_set_cancel(struct graviton_config *config,
                                           graviton_cancel_callback callback,
                                           void *userdata,
                                           struct graviton_error **error);

/**
 * Opens the store, and creates it if it does not exist. Free it with graviton_store_free. Blocks.
 */
graviton_status graviton_config_open(const struct graviton_config *config,
                                     struct graviton_store **store,
                                     struct graviton_error **error);

/**
 * Opens an existing store. If there is none, returns GRAVITON_ERROR_NOT_FOUND and creates nothing. Free it
 * with graviton_store_free. Blocks.
 */
graviton_status graviton_config_open_existing(const struct graviton_config *config,
                                              struct graviton_store **store,
                                              struct graviton_error **error);

/**
 * Opens an existing store for reading only: nothing is written, and its directory may be read-only. If there
 * is none, returns GRAVITON_ERROR_NOT_FOUND. Free it with graviton_store_free. Blocks.
 */
graviton_status graviton_config_open_read_only(const struct graviton_config *config,
                                               struct graviton_store **store,
                                               struct graviton_error **error);

/**
 * Frees a configuration. NULL is fine.
 */
void graviton_config_free(struct graviton_config *config);

/**
 * The number of settings. Never blocks.
 */
size_t graviton_setting_count(void);

/**
 * The name of a setting, by its index from 0 to graviton_setting_count() - 1; NULL for any other. It is
 * valid for ever. Never blocks.
 */
const char *graviton_setting_name(size_t index);

/**
 * The default of a setting, empty if it has none; NULL for an invalid index. It is valid for ever. Never
 * blocks.
 */
const char *graviton_setting_default(size_t index);

/**
 * The meaning of a setting, in English; NULL for an invalid index. It is valid for ever. Never blocks.
 */
const char *graviton_setting_meaning(size_t index);

/**
 * Opens the store in a directory (`path` of `path_length` bytes, in any encoding), with blocks as files and
 * manifests in SQLite; creates it if it does not exist. All other settings are the defaults. Free it with
 * graviton_store_free. Blocks.
 */
graviton_status graviton_store_open(const char *path,
                                    size_t path_length,
                                    struct graviton_store **store,
                                    struct graviton_error **error);

/**
 * Makes another handle on the same store, with its own cancel callback for its calls and for those of the
 * readers, writers and iterators that are opened with it: one for each thread or request that is cancelled
 * separately. With NULL, the handle has no cancel callback. `userdata` may be NULL; it must stay valid as
 * long as those handles are used. Closing one handle closes the store for all; free each with
 * graviton_store_free. Never blocks.
 */
graviton_status graviton_store_with_cancel(const struct graviton_store *store,
                                           graviton_cancel_callback callback,
                                           void *userdata,
                                           struct graviton_store **other,
                                           struct graviton_error **error);

/**
 * Closes the store. Every later call with any handle on it, and with its readers, writers and iterators, is
 * GRAVITON_ERROR_CLOSED; calls that are running in other threads succeed or fail with it. A second close
 * does nothing. The handle must still be freed. Blocks.
 */
graviton_status graviton_store_close(struct graviton_store *store, struct graviton_error **error);

/**
 * Frees a handle. NULL is fine. Freeing the last handle without graviton_store_close does as much of the
 * closing as it can without waiting; committed data is never lost. In a forked child it only forgets the
 * handle.
 */
void graviton_store_free(struct graviton_store *store);

/**
 * Gets the metadata of a blob. GRAVITON_ERROR_NOT_FOUND if there is no such blob. Blocks.
 */
graviton_status graviton_store_stat(const struct graviton_store *store,
                                    const struct graviton_blob_id *id,
                                    struct graviton_blob_stat *stat,
                                    struct graviton_error **error);

/**
 * Tests whether a blob exists: `*exists` becomes 1 or 0. Blocks.
 */
graviton_status graviton_store_exists(const struct graviton_store *store,
                                      const struct graviton_blob_id *id,
                                      int32_t *exists,
                                      struct graviton_error **error);

/**
 * Deletes a blob: once this returns, no process finds it. GRAVITON_ERROR_NOT_FOUND if there is no such blob.
 * It can be restored for the grace period (GRAVITON_GC_GRACE), and open readers continue; the next
 * graviton_store_gc after that frees its space. Blocks.
 */
graviton_status graviton_store_delete(const struct graviton_store *store,
                                      const struct graviton_blob_id *id,
                                      struct graviton_error **error);

/**
 * Restores a deleted blob. This works until a collection takes it, at least for the grace period; afterwards
 * it is GRAVITON_ERROR_NOT_FOUND. Restoring a live blob succeeds and changes nothing. Blocks.
 */
graviton_status graviton_store_restore(const struct graviton_store *store,
                                       const struct graviton_blob_id *id,
                                       struct graviton_error **error);

/**
 * Gets the totals of the store. Takes time proportional to the number of blobs and blocks. Blocks.
 */
graviton_status graviton_store_stats_get(const struct graviton_store *store,
                                         struct graviton_store_stats *stats,
                                         struct graviton_error **error);

/**
 * Writes a consistent copy of the manifests to a new file (`path` of `path_length` bytes), while the store
 * is in use. Only for manifests in SQLite: elsewhere it is GRAVITON_ERROR_UNSUPPORTED. Blocks.
 */
graviton_status graviton_store_backup(const struct graviton_store *store,
                                      const char *path,
                                      size_t path_length,
                                      struct graviton_error **error);

/**
 * Stores `length` bytes from memory, which must not change meanwhile. `bytes` may be NULL if `length` is 0:
 * the empty blob. `options` may be NULL. `receipt` may be NULL. The blob becomes visible when this returns;
 * a failure stores nothing. Blocks.
 */
graviton_status graviton_store_put(const struct graviton_store *store,
                                   const uint8_t *bytes,
                                   size_t length,
                                   const struct graviton_put_options *options,
                                   struct graviton_put_receipt *receipt,
                                   struct graviton_error **error);

/**
 * Stores everything from the current position of a file descriptor to its end, and does not close it. Pipes,
 * sockets and devices work, also in non-blocking mode; while they are silent, the cancel callback can end
 * the call, and so does closing the store. A descriptor that is not open, or a directory, is
 * GRAVITON_ERROR_INVALID_ARGUMENT. `options` may be NULL. `receipt` may be NULL. Blocks.
 */
graviton_status graviton_store_put_fd(const struct graviton_store *store,
                                      int32_t fd,
                                      const struct graviton_put_options *options,
                                      struct graviton_put_receipt *receipt,
                                      struct graviton_error **error);

/**
 * Stores the content of a file: `path` of `path_length` bytes, in any encoding. FIFOs work as in
 * graviton_store_put_fd. A missing file is GRAVITON_ERROR_NOT_FOUND, a directory
 * GRAVITON_ERROR_INVALID_ARGUMENT. `options` may be NULL. `receipt` may be NULL. Blocks.
 */
graviton_status graviton_store_put_path(const struct graviton_store *store,
                                        const char *path,
                                        size_t path_length,
                                        const struct graviton_put_options *options,
                                        struct graviton_put_receipt *receipt,
                                        struct graviton_error **error);

/**
 * Stores the bytes that a callback provides, until it provides none. `userdata` may be NULL. `options` may
 * be NULL. `receipt` may be NULL. A callback that aborts stores nothing. Blocks.
 */
graviton_status graviton_store_put_callback(const struct graviton_store *store,
                                            graviton_read_callback read,
                                            void *userdata,
                                            const struct graviton_put_options *options,
                                            struct graviton_put_receipt *receipt,
                                            struct graviton_error **error);

/**
 * Reads a whole blob into `bytes` and writes its length to `*count`. A `capacity` below the `size` in its id
 * is GRAVITON_ERROR_INVALID_ARGUMENT. `bytes` may be NULL if `capacity` is 0. `options` may be NULL. `count`
 * may be NULL. Bytes that the progress callback counts are already there. After an error the content of
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
 * Writes a whole blob to a file descriptor at its current position, and does not close it. Pipes, sockets
 * and devices work, also in non-blocking mode; while they accept nothing, the cancel callback can end the
 * call, and so does closing the store. A closed pipe raises SIGPIPE as any write does. A descriptor that is
 * not open, or a directory, is GRAVITON_ERROR_INVALID_ARGUMENT. After an error some bytes of the blob may
 * have been written, and no other bytes. `options` may be NULL. Blocks.
 */
graviton_status graviton_store_get_fd(const struct graviton_store *store,
                                      const struct graviton_blob_id *id,
                                      int32_t fd,
                                      const struct graviton_get_options *options,
                                      struct graviton_error **error);

/**
 * Reads up to `length` bytes of a blob from `offset` into `bytes`, and writes their number to `*count`: less
 * than `length` only at the end of the blob. An `offset` beyond the end is
 * GRAVITON_ERROR_RANGE_NOT_SATISFIABLE. Reads only the blocks that hold these bytes. For several ranges of a
 * blob, graviton_reader_read_at is faster. `bytes` may be NULL if `length` is 0. Blocks.
 */
graviton_status graviton_store_read_range(const struct graviton_store *store,
                                          const struct graviton_blob_id *id,
                                          uint64_t offset,
                                          uint8_t *bytes,
                                          size_t length,
                                          size_t *count,
                                          struct graviton_error **error);

/**
 * Opens a writer. With `expected`, only content with this id is committed; other content is
 * GRAVITON_ERROR_DIGEST_MISMATCH. `expected` may be NULL. Free it with graviton_writer_free, before or after
 * the store. Blocks.
 */
graviton_status graviton_writer_open(const struct graviton_store *store,
                                     const struct graviton_blob_id *expected,
                                     struct graviton_writer **writer,
                                     struct graviton_error **error);

/**
 * Writes the next `length` bytes of the blob: all of them, or it fails. `bytes` may be NULL if `length` is
 * 0. After an error, every later call on this writer returns it again, and the writer can only be freed; an
 * invalid argument, or use by two threads at once, does not count. Blocks while the store is slower than the
 * caller.
 */
graviton_status graviton_writer_write(struct graviton_writer *writer,
                                      const uint8_t *bytes,
                                      size_t length,
                                      struct graviton_error **error);

/**
 * The number of bytes written so far, into `*size`. Never blocks.
 */
graviton_status graviton_writer_size(const struct graviton_writer *writer,
                                     uint64_t *size,
                                     struct graviton_error **error);

/**
 * Commits the blob: when this returns, it is visible, and as durable as the store is configured. The writer
 * can then only be freed; writing to it is GRAVITON_ERROR_INVALID_ARGUMENT. `receipt` may be NULL. Blocks.
 */
graviton_status graviton_writer_finish(struct graviton_writer *writer,
                                       struct graviton_put_receipt *receipt,
                                       struct graviton_error **error);

/**
 * Frees a writer; an unfinished blob is aborted and leaves nothing. NULL is fine. In a forked child it only
 * forgets the handle.
 */
void graviton_writer_free(struct graviton_writer *writer);

/**
 * Opens a blob for reading. GRAVITON_ERROR_NOT_FOUND if there is no such blob. Free it with
 * graviton_reader_free, before or after the store. Blocks.
 */
graviton_status graviton_reader_open(const struct graviton_store *store,
                                     const struct graviton_blob_id *id,
                                     struct graviton_reader **reader,
                                     struct graviton_error **error);

/**
 * Reads the next bytes into `buffer` of `capacity` bytes, and writes their number to `*count`: 0 only at the
 * end of the blob (or for a `capacity` of 0), otherwise at least one and often fewer than `capacity`, like
 * read(2). `buffer` may be NULL if `capacity` is 0. After an error, every later call that uses the position
 * returns it again; an invalid argument, or use by two threads at once, does not count. Blocks.
 */
graviton_status graviton_reader_read(struct graviton_reader *reader,
                                     uint8_t *buffer,
                                     size_t capacity,
                                     size_t *count,
                                     struct graviton_error **error);

/**
 * Reads bytes at an offset into `buffer` of `length` bytes, and writes their number to `*count`: less than
 * `length` only at the end of the blob, 0 beyond it. Like pread(2), it neither uses nor moves the position;
 * an error leaves the reader usable. From any number of threads at once. `buffer` may be NULL if `length` is
 * 0. Blocks.
 */
graviton_status graviton_reader_read_at(const struct graviton_reader *reader,
                                        uint64_t offset,
                                        uint8_t *buffer,
                                        size_t length,
                                        size_t *count,
                                        struct graviton_error **error);

/**
 * Moves the position to `offset` bytes from `whence` (GRAVITON_SEEK_...), and writes the new position, from
 * the start, to `*position`. A position beyond the end is allowed; nothing is read there. One before the
 * start is GRAVITON_ERROR_INVALID_ARGUMENT. `position` may be NULL. It reads nothing. Never blocks.
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
 * Frees a reader. NULL is fine. No other thread may be using it. In a forked child it only forgets the
 * handle.
 */
void graviton_reader_free(struct graviton_reader *reader);

/**
 * Iterates over all live blobs, or those after `after`, ordered by algorithm, digest and size. Blobs that
 * are put or deleted meanwhile may or may not be included. `after` may be NULL. Free it with
 * graviton_list_free. Never blocks.
 */
graviton_status graviton_list_open(const struct graviton_store *store,
                                   const struct graviton_blob_id *after,
                                   struct graviton_list **list,
                                   struct graviton_error **error);

/**
 * The next blob: `*found` becomes 1 and `stat` is filled in, or `*found` becomes 0 at the end and `stat`
 * stays as it is. After an error it can be called again. Blocks.
 */
graviton_status graviton_list_next(struct graviton_list *list,
                                   struct graviton_blob_stat *stat,
                                   int32_t *found,
                                   struct graviton_error **error);

/**
 * Frees an iterator. NULL is fine.
 */
void graviton_list_free(struct graviton_list *list);

/**
 * Iterates over the blocks of a blob in order, from the one that holds the byte at `from`.
 * GRAVITON_ERROR_NOT_FOUND if there is no such blob. Free it with graviton_manifest_free. Blocks.
 */
graviton_status graviton_manifest_open(const struct graviton_store *store,
                                       const struct graviton_blob_id *id,
                                       uint64_t from,
                                       struct graviton_manifest **manifest,
                                       struct graviton_error **error);

/**
 * The next block: `*found` becomes 1 and `entry` is filled in, or `*found` becomes 0 at the end and `entry`
 * stays as it is. After an error it can be called again. Blocks.
 */
graviton_status graviton_manifest_next(struct graviton_manifest *manifest,
                                       struct graviton_manifest_entry *entry,
                                       int32_t *found,
                                       struct graviton_error **error);

/**
 * Frees an iterator. NULL is fine.
 */
void graviton_manifest_free(struct graviton_manifest *manifest);

/**
 * Reads a whole block, verified, into `bytes` and writes its length to `*count`. A `capacity` below the
 * `size` in its key is GRAVITON_ERROR_INVALID_ARGUMENT, a block that is not stored GRAVITON_ERROR_NOT_FOUND.
 * This is for programs that compare stores or inspect manifests; read blobs with a graviton_reader. A block
 * that no blob references may be collected at any moment. `count` may be NULL. After an error the content of
 * `bytes` is undefined. Blocks.
 */
graviton_status graviton_store_read_block(const struct graviton_store *store,
                                          const struct graviton_block_key *key,
                                          uint8_t *bytes,
                                          size_t capacity,
                                          size_t *count,
                                          struct graviton_error **error);

/**
 * Deletes unreferenced blocks: those of blobs that were deleted before the grace period, and of puts whose
 * process is gone. Any number of collections may run at once, beside all other calls. `options` may be NULL.
 * `callback` may be NULL. `userdata` may be NULL. `report` may be NULL. Blocks, possibly for hours.
 */
graviton_status graviton_store_gc(const struct graviton_store *store,
                                  const struct graviton_gc_options *options,
                                  graviton_gc_callback callback,
                                  void *userdata,
                                  struct graviton_gc_report *report,
                                  struct graviton_error **error);

/**
 * Moves all stored blocks into a layout (`to` of `to_length` bytes): `packs`, or `files` of their own. It
 * runs beside all other calls. After an interruption, call it again for the rest. Damaged blocks are not
 * errors: they are marked, and counted in the report. In S3, an object whose deletion got no answer is
 * counted in `kept_failed`: another repack or gc removes it half an hour later. `callback` may be NULL.
 * `userdata` may be NULL. `report` may be NULL. Blocks, possibly for hours.
 */
graviton_status graviton_store_repack(const struct graviton_store *store,
                                      const char *to,
                                      size_t to_length,
                                      graviton_repack_callback callback,
                                      void *userdata,
                                      struct graviton_repack_report *report,
                                      struct graviton_error **error);

/**
 * Checks that everything is there and intact, and reports the rest. Findings are not errors: `report->clean`
 * says whether a live blob is damaged. `options` may be NULL. `callback` may be NULL. `userdata` may be
 * NULL. `report` may be NULL. Blocks, possibly for hours.
 */
graviton_status graviton_store_verify(const struct graviton_store *store,
                                      const struct graviton_verify_options *options,
                                      graviton_verify_callback callback,
                                      void *userdata,
                                      struct graviton_verify_report *report,
                                      struct graviton_error **error);

/**
 * Copies blobs from another store of any kind, verified; transfers only the blocks that are missing here.
 * After an interruption, call it again. `options` may be NULL. `callback` may be NULL. `userdata` may be
 * NULL. `report` may be NULL. Blocks, possibly for hours.
 */
graviton_status graviton_store_copy_from(const struct graviton_store *store,
                                         const struct graviton_store *other,
                                         const struct graviton_copy_options *options,
                                         graviton_copy_callback callback,
                                         void *userdata,
                                         struct graviton_copy_report *report,
                                         struct graviton_error **error);

/**
 * Checks every block that a live blob needs, and replaces missing and damaged ones by verified blocks of
 * another store. `callback` may be NULL. `userdata` may be NULL. `report` may be NULL. Blocks, possibly for
 * hours.
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

/** Initialises a graviton_put_options: any content, and no callback. */
#define GRAVITON_PUT_OPTIONS_INIT { sizeof(graviton_put_options), NULL, NULL, NULL }

/** Initialises a graviton_get_options: no callback. */
#define GRAVITON_GET_OPTIONS_INIT { sizeof(graviton_get_options), NULL, NULL }

/** Initialises a graviton_gc_options: the configured grace, and no limits. */
#define GRAVITON_GC_OPTIONS_INIT { sizeof(graviton_gc_options), 0, 0, 0, 0, 0, 0 }

/** Initialises a graviton_copy_options: all blobs. */
#define GRAVITON_COPY_OPTIONS_INIT { sizeof(graviton_copy_options), NULL, 0 }

/** Initialises a graviton_verify_options: everything, by lengths. */
#define GRAVITON_VERIFY_OPTIONS_INIT { sizeof(graviton_verify_options), 0, 0, NULL, 0, 0, NULL, 0, 0 }

/** Initialises a graviton_put_receipt. */
#define GRAVITON_PUT_RECEIPT_INIT { sizeof(graviton_put_receipt), { 0, 0, 0, { 0 } }, 0, 0, 0, 0, 0, 0 }

/** Initialises a graviton_blob_stat. */
#define GRAVITON_BLOB_STAT_INIT { sizeof(graviton_blob_stat), { 0, 0, 0, { 0 } }, 0, 0, { 0 } }

/** Initialises a graviton_store_stats. */
#define GRAVITON_STORE_STATS_INIT { sizeof(graviton_store_stats), 0, 0, 0, 0, 0, 0, 0, 0.0, 0, 0.0, 0, 0, 0, 0, 0, 0, 0, 0 }

/** Initialises a graviton_gc_report. */
#define GRAVITON_GC_REPORT_INIT { sizeof(graviton_gc_report), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.0, 0, 0, { 0 }, 0, 0, 0 }

/** Initialises a graviton_verify_report. */
#define GRAVITON_VERIFY_REPORT_INIT { sizeof(graviton_verify_report), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.0, 0, 0, { 0 }, 0, 0, 0 }

/** Initialises a graviton_copy_report. */
#define GRAVITON_COPY_REPORT_INIT { sizeof(graviton_copy_report), 0, 0, 0, 0, 0, 0.0, 0, 0 }

/** Initialises a graviton_repair_report. */
#define GRAVITON_REPAIR_REPORT_INIT { sizeof(graviton_repair_report), 0, 0, 0, 0, 0.0, 0, 0 }

/** Initialises a graviton_repack_report. */
#define GRAVITON_REPACK_REPORT_INIT { sizeof(graviton_repack_report), 0, 0, 0, 0, 0, 0, 0, 0, 0.0, 0, 0, { 0 } }

#endif  /* GRAVITON_H */
