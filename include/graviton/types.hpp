// Part of graviton.hpp: what calls take and give, and what there is besides stores.

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

/// Told how far a put or get has come: bytes done, and bytes in all if that is known.
using progress_callback = std::function<flow(std::uint64_t done, std::optional<std::uint64_t> total)>;

/// Asked for the next bytes of a blob: writes some of them and returns how many, where 0 is the end, or std::nullopt to abort.
using read_callback = std::function<std::optional<std::size_t>(bytes_span room)>;

/// Asked about every 50 ms, while a call waits, whether to go on; on the thread that makes the call. Must be quick, and must not
/// use the handle that is in the call.
using cancel_callback = std::function<flow()>;

/// How to put.
struct put_options {
    /// The id that the content must have; any other is errc::digest_mismatch and stores nothing.
    std::optional<blob_id> expected = std::nullopt;
    /// Told how far it is.
    progress_callback progress = nullptr;
};

/// What a put did.
struct put_receipt {
    /// The id under which the content can be read.
    blob_id id;
    /// How many blocks the content was cut into.
    std::uint64_t blocks = 0;
    /// How many of them were not in the store before and were written.
    std::uint64_t fresh_blocks = 0;
    /// The bytes of those.
    std::uint64_t fresh_bytes = 0;
    /// Whether the blob is new.
    bool created = false;

    put_receipt() = default;
    /// The one of graviton.h.
    explicit put_receipt(const graviton_put_receipt &raw)
        : id(raw.id), blocks(raw.blocks), fresh_blocks(raw.fresh_blocks), fresh_bytes(raw.fresh_bytes), created(raw.created != 0)
    {
    }
};

/// What is known of a blob.
struct blob_stat {
    /// Its id; the size in bytes is in it.
    blob_id id;
    /// How many blocks it has.
    std::uint64_t blocks = 0;
    /// When it was put, to the millisecond.
    std::chrono::system_clock::time_point created_at;
    /// The setting GRAVITON_CHUNKER that it was cut with.
    std::string chunker;

    blob_stat() = default;
    /// The one of graviton.h.
    explicit blob_stat(const graviton_blob_stat &raw)
        : id(raw.id), blocks(raw.blocks), created_at(std::chrono::milliseconds(raw.created_at_ms)), chunker(raw.chunker)
    {
    }
};

/// A block's place in a blob.
struct manifest_entry {
    /// Where the block starts in the blob, in bytes.
    std::uint64_t offset = 0;
    /// Which block; its size is in the key.
    block_key key;

    manifest_entry() = default;
    /// The one of graviton.h.
    explicit manifest_entry(const graviton_manifest_entry &raw) : offset(raw.offset), key(raw.key) {}
};

/// Sums over a store, as in graviton.h.
using store_stats = graviton_store_stats;

/// What a collection is to do.
struct gc_options {
    /// Blobs that were deleted longer ago go; as configured (GRAVITON_GC_GRACE) if not set, and all of them for 0.
    std::optional<std::chrono::milliseconds> grace = std::nullopt;
    /// No step begins after so long. 0: no limit.
    std::chrono::milliseconds max_time{0};
    /// So many blocks are deleted at most. 0: no limit.
    std::uint64_t max_blocks = 0;
    /// About so many bytes are deleted at most. 0: no limit.
    std::uint64_t max_bytes = 0;
    /// So many blocks are deleted in a second at most. 0: no limit.
    std::uint32_t blocks_per_second = 0;
    /// Only find out what there is to do.
    bool dry_run = false;
};

/// What a collection did: the fields of graviton.h, and the names.
struct gc_report : graviton_gc_report {
    /// The blobs that a dry run names.
    std::vector<blob_id> named;
};

/// What a copy did: the fields of graviton.h, and the names.
struct copy_report : graviton_copy_report {
    /// The blobs that the other store does not have whole.
    std::vector<blob_id> damaged;
};

/// What a repair did: the fields of graviton.h, and the names.
struct repair_report : graviton_repair_report {
    /// The bad blocks that the other store does not have whole either.
    std::vector<block_key> lost;
};

/// What a verification is to do.
struct verify_options {
    /// Hash every byte again, instead of looking only at lengths.
    bool deep = false;
    /// Hand blocks that no row knows to the collector.
    bool adopt = false;
    /// Only these blobs, and none if the vector is empty. std::nullopt: all of the store.
    std::optional<std::vector<blob_id>> ids = std::nullopt;
    /// Read at most so many bytes in a second. 0: no limit.
    std::uint64_t bytes_per_second = 0;
    /// Go on where an earlier one ended: the `cursor` of its report.
    std::string from = {};
};

/// What a verification looked at and found, as in graviton.h.
using verify_report = graviton_verify_report;

/// What a verification tells of.
enum class verify_kind : std::int32_t {
    progress = GRAVITON_VERIFY_PROGRESS,
    block = GRAVITON_VERIFY_BLOCK,
    manifest = GRAVITON_VERIFY_MANIFEST,
    database = GRAVITON_VERIFY_DATABASE,
    unreferenced = GRAVITON_VERIFY_UNREFERENCED
};

/// What is wrong with a block.
enum class damage : std::int32_t {
    none = GRAVITON_DAMAGE_NONE,
    missing = GRAVITON_DAMAGE_MISSING,
    wrong_length = GRAVITON_DAMAGE_WRONG_LENGTH,
    corrupt = GRAVITON_DAMAGE_CORRUPT
};

/// What a verification tells while it runs.
struct verify_event {
    /// Which of them it is. A later version may have more.
    verify_kind kind;
    /// For verify_kind::block: what is wrong with it.
    graviton::damage damage;
    /// For verify_kind::block and ::unreferenced: the block.
    block_key block;
    /// For verify_kind::unreferenced and damage::wrong_length: how many bytes are there.
    std::uint64_t length;
    /// For verify_kind::block: the blobs that are hurt, up to a thousand of them. For ::manifest: the blob.
    std::vector<blob_id> blobs;
    /// For verify_kind::manifest and ::database: what is wrong. Lives until the callback returns.
    std::string_view text;
    /// For verify_kind::progress: what was looked at so far, otherwise null. Lives until the callback returns.
    const verify_report *report;

    /// The one of graviton.h.
    explicit verify_event(const graviton_verify_event &raw)
        : kind(static_cast<verify_kind>(raw.kind)), damage(static_cast<graviton::damage>(raw.damage)), block(raw.block),
          length(raw.length), blobs(detail::copied<blob_id>(raw.blobs, raw.blob_count)),
          text(raw.text == nullptr ? "" : raw.text), report(raw.report)
    {
    }
};

/// A setting that there is.
struct setting {
    /// Its name, such as "GRAVITON_HASH".
    std::string_view name;
    /// Its default; empty if it has none.
    std::string_view default_value;
    /// What it means, in English.
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

/// How many bytes to pass in one call of writer::write or reader::read for the best speed.
inline std::size_t recommended_buffer_size() noexcept { return graviton_recommended_buffer_size(); }

} // inline namespace
} // namespace graviton

#endif // GRAVITON_TYPES_HPP
