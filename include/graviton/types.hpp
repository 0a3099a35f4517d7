// Part of graviton.hpp: the arguments and results of calls, and everything besides stores.

#ifndef GRAVITON_TYPES_HPP
#define GRAVITON_TYPES_HPP

#include "blob_id.hpp"

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace graviton {
inline namespace GRAVITON_ERROR_STYLE {

/// Reports the progress of a put or get: bytes done, and the total if it is known.
using progress_callback = std::function<flow(std::uint64_t done, std::optional<std::uint64_t> total)>;

/// Provides the next bytes of a blob: writes some of them and returns their number, where 0 is the end, or
/// std::nullopt to abort.
using read_callback = std::function<std::optional<std::size_t>(bytes_span room)>;

/// Decides about every 50 ms, while a call waits, whether it continues; on the thread that makes the call.
/// Must be quick, and must not use the handle of the call.
using cancel_callback = std::function<flow()>;

/// Options of a put.
struct put_options {
    /// The id that the content must have; other content is errc::digest_mismatch and stores nothing.
    std::optional<blob_id> expected = std::nullopt;
    /// The progress callback.
    progress_callback progress = nullptr;
};

/// The result of a put.
struct put_receipt {
    /// The id of the content.
    blob_id id;
    /// The number of blocks of the content.
    std::uint64_t blocks = 0;
    /// The number of its blocks that were new to the store and were written.
    std::uint64_t fresh_blocks = 0;
    /// The size of those in bytes.
    std::uint64_t fresh_bytes = 0;
    /// Whether the blob is new.
    bool created = false;
    /// The bytes that the new blocks take where they are stored, after compression.
    std::uint64_t fresh_stored_bytes = 0;

    put_receipt() = default;
    /// From the struct of graviton.h.
    explicit put_receipt(const graviton_put_receipt &raw)
        : id(raw.id), blocks(raw.blocks), fresh_blocks(raw.fresh_blocks), fresh_bytes(raw.fresh_bytes), created(raw.created != 0),
          fresh_stored_bytes(raw.fresh_stored_bytes)
    {
    }
};

/// The metadata of a blob.
struct blob_stat {
    /// Its id, which includes its size in bytes.
    blob_id id;
    /// The number of its blocks.
    std::uint64_t blocks = 0;
    /// The time of the put, in milliseconds.
    std::chrono::system_clock::time_point created_at;
    /// The chunker that cut it (GRAVITON_CHUNKER).
    std::string chunker;

    blob_stat() = default;
    /// From the struct of graviton.h.
    explicit blob_stat(const graviton_blob_stat &raw)
        : id(raw.id), blocks(raw.blocks), created_at(std::chrono::milliseconds(raw.created_at_ms)), chunker(raw.chunker)
    {
    }
};

/// The position of a block in a blob.
struct manifest_entry {
    /// Where the block starts in the blob, in bytes.
    std::uint64_t offset = 0;
    /// The block; its size is in the key.
    block_key key;

    manifest_entry() = default;
    /// From the struct of graviton.h.
    explicit manifest_entry(const graviton_manifest_entry &raw) : offset(raw.offset), key(raw.key) {}
};

/// Sums over a store, as in graviton.h.
using store_stats = graviton_store_stats;

/// Options of a collection.
struct gc_options {
    /// The grace period; blobs that were deleted before it are collected. As configured (GRAVITON_GC_GRACE)
    /// if not set; all deleted blobs for 0.
    std::optional<std::chrono::milliseconds> grace = std::nullopt;
    /// The time limit; no step begins after it. 0: no limit.
    std::chrono::milliseconds max_time{0};
    /// The maximum number of blocks to delete. 0: no limit.
    std::uint64_t max_blocks = 0;
    /// The approximate maximum number of bytes to delete. 0: no limit.
    std::uint64_t max_bytes = 0;
    /// The maximum number of blocks to delete in a second. 0: no limit.
    std::uint32_t blocks_per_second = 0;
    /// Report only what would be deleted.
    bool dry_run = false;
};

/// The report of a collection: the fields of graviton.h, and the ids.
struct gc_report : graviton_gc_report {
    /// The blobs that a dry run lists.
    std::vector<blob_id> named;
};

/// The report of a copy: the fields of graviton.h, and the ids.
struct copy_report : graviton_copy_report {
    /// The blobs that are damaged in the other store.
    std::vector<blob_id> damaged;
};

/// The report of a repair: the fields of graviton.h, and the keys.
struct repair_report : graviton_repair_report {
    /// The bad blocks that are missing or damaged in the other store too.
    std::vector<block_key> lost;
};

/// The report of a repack, as in graviton.h.
using repack_report = graviton_repack_report;

/// Options of a verification.
struct verify_options {
    /// Hash every byte, instead of checking only lengths.
    bool deep = false;
    /// Hand blocks without a row to the collector.
    bool adopt = false;
    /// Only these blobs, and none if the vector is empty. std::nullopt: all of the store.
    std::optional<std::vector<blob_id>> ids = std::nullopt;
    /// The maximum number of bytes to read in a second. 0: no limit.
    std::uint64_t bytes_per_second = 0;
    /// The `cursor` of an earlier report, to continue there.
    std::string from = {};
    /// Copy blocks that are missing or damaged from packs without a row. Only of the whole store.
    bool rebuild = false;
};

/// The report of a verification, as in graviton.h.
using verify_report = graviton_verify_report;

/// The kinds of verification events.
enum class verify_kind : std::int32_t {
    progress = GRAVITON_VERIFY_PROGRESS,
    block = GRAVITON_VERIFY_BLOCK,
    manifest = GRAVITON_VERIFY_MANIFEST,
    database = GRAVITON_VERIFY_DATABASE,
    unreferenced = GRAVITON_VERIFY_UNREFERENCED,
    pack = GRAVITON_VERIFY_PACK,
    record = GRAVITON_VERIFY_RECORD
};

/// The damage of a block.
enum class damage : std::int32_t {
    none = GRAVITON_DAMAGE_NONE,
    missing = GRAVITON_DAMAGE_MISSING,
    wrong_length = GRAVITON_DAMAGE_WRONG_LENGTH,
    corrupt = GRAVITON_DAMAGE_CORRUPT
};

/// An event of a verification.
struct verify_event {
    /// The kind. A later version may add more.
    verify_kind kind;
    /// For verify_kind::block: the damage.
    graviton::damage damage;
    /// For verify_kind::block and ::unreferenced: the block.
    block_key block;
    /// For verify_kind::unreferenced, ::pack and damage::wrong_length: the actual length.
    std::uint64_t length;
    /// For verify_kind::block: the damaged blobs, up to a thousand of them. For ::manifest: the blob.
    std::vector<blob_id> blobs;
    /// For verify_kind::manifest and ::database: a description; for ::pack: the name of the pack. Valid until
    /// the callback returns.
    std::string_view text;
    /// For verify_kind::progress: the report so far, otherwise null. Valid until the callback returns.
    const verify_report *report;

    /// From the struct of graviton.h.
    explicit verify_event(const graviton_verify_event &raw)
        : kind(static_cast<verify_kind>(raw.kind)), damage(static_cast<graviton::damage>(raw.damage)), block(raw.block),
          length(raw.length), blobs(detail::copied<blob_id>(raw.blobs, raw.blob_count)),
          text(raw.text == nullptr ? "" : raw.text), report(raw.report)
    {
    }
};

/// A setting.
struct setting {
    /// Its name, such as "GRAVITON_HASH".
    std::string_view name;
    /// Its default; empty if it has none.
    std::string_view default_value;
    /// Its meaning, in English.
    std::string_view meaning;
};

/// All settings.
inline std::vector<setting> settings()
{
    std::vector<setting> all;
    for (std::size_t index = 0; index < graviton_setting_count(); ++index) {
        all.push_back({graviton_setting_name(index), graviton_setting_default(index), graviton_setting_meaning(index)});
    }
    return all;
}

/// The version of the library that is running, such as "0.2.0".
inline std::string_view version() noexcept { return graviton_version(); }

/// The version of the library that is running, composed like GRAVITON_VERSION_NUMBER.
inline std::int32_t version_number() noexcept { return graviton_version_number(); }

/// The best size of a buffer for writer::write and reader::read, in bytes.
inline std::size_t recommended_buffer_size() noexcept { return graviton_recommended_buffer_size(); }

} // inline namespace
} // namespace graviton

#endif // GRAVITON_TYPES_HPP
