// Part of graviton.hpp: an open store.

#ifndef GRAVITON_STORE_HPP
#define GRAVITON_STORE_HPP

#include "reader.hpp"
#include "walk.hpp"
#include "writer.hpp"

#include <filesystem>
#include <istream>
#include <limits>
#include <string>

namespace graviton {
inline namespace GRAVITON_ERROR_STYLE {

namespace detail {

/// Keeps a stream from throwing while it is read to its end, even if its exceptions() ask for that. Later it
/// throws again.
class silenced {
public:
    explicit silenced(std::istream &stream) : stream_(stream), asked_(stream.exceptions())
    {
        stream.exceptions(std::ios_base::goodbit);
    }
    silenced(const silenced &) = delete;
    silenced &operator=(const silenced &) = delete;
    ~silenced()
    {
        if (stream_.eof() && !stream_.bad()) {
            // The last read was short, which is no failure here.
            stream_.clear(std::ios_base::eofbit);
        }
#if defined(__cpp_exceptions) || defined(_CPPUNWIND)
        try {
            stream_.exceptions(asked_);
        } catch (...) {
            // The exception is about the state that the stream already has, which is set nevertheless.
        }
#else
        if ((stream_.rdstate() & asked_) == 0) {
            stream_.exceptions(asked_);
        }
#endif
    }

private:
    std::istream &stream_;
    std::ios_base::iostate asked_;
};

} // namespace detail

/// An open store. Any number of threads may use it at once. Its readers, writers and iterators stay valid
/// without it.
class store {
public:
    /// Takes over a handle of graviton.h.
    explicit store(graviton_store *raw, detail::cancel_keeper cancel = nullptr) noexcept : raw_(raw, {std::move(cancel)}) {}

    /// Opens the store in a directory with default settings; creates it if it does not exist. For more, see
    /// config.
    static outcome<store> open(const std::filesystem::path &directory)
    {
        graviton_store *raw = nullptr;
        return detail::run<store>(
            [&](auto error) {
                return graviton_store_open(directory.native().data(), directory.native().size(), &raw, error);
            },
            [&] { return store(raw); });
    }

    /// Another handle on the same store with its own cancel callback. Closing one closes the store for all.
    outcome<store> with_cancel(cancel_callback callback) const
    {
        auto cancel = detail::keep(std::move(callback));
        graviton_store *other = nullptr;
        return detail::run<store>(
            [&](auto error) {
                return graviton_store_with_cancel(raw_.get(), detail::cancel_function(cancel), detail::cancel_userdata(cancel),
                                                  &other, error);
            },
            [&] { return store(other, std::move(cancel)); });
    }

    /// Closes the store; every later call is errc::closed. Only needed to see errors.
    outcome<void> close()
    {
        return detail::run([&](auto error) { return graviton_store_close(raw_.get(), error); });
    }

    /// Stores bytes from memory.
    outcome<put_receipt> put(bytes_view bytes, const put_options &options = {}) const
    {
        return put_with(options, [&](auto raw, auto receipt, auto error) {
            return graviton_store_put(raw_.get(), bytes.data(), bytes.size(), raw, receipt, error);
        });
    }

    /// Stores everything from the current position of a file descriptor to its end, and does not close it.
    outcome<put_receipt> put_fd(int fd, const put_options &options = {}) const
    {
        return put_with(options, [&](auto raw, auto receipt, auto error) {
            return graviton_store_put_fd(raw_.get(), fd, raw, receipt, error);
        });
    }

    /// Puts the content of a file.
    outcome<put_receipt> put_path(const std::filesystem::path &path, const put_options &options = {}) const
    {
        return put_with(options, [&](auto raw, auto receipt, auto error) {
            return graviton_store_put_path(raw_.get(), path.native().data(), path.native().size(), raw, receipt, error);
        });
    }

    /// Stores the bytes that a callback provides, until it provides none.
    outcome<put_receipt> put_callback(const read_callback &read, const put_options &options = {}) const
    {
        return put_with(options, [&](auto raw, auto receipt, auto error) {
            return graviton_store_put_callback(raw_.get(), read ? detail::read_source : nullptr,
                                               const_cast<read_callback *>(&read), raw, receipt, error);
        });
    }

    /// Stores everything from the current position of a stream to its end. A stream that has failed or goes
    /// bad is errc::cancelled, and nothing is stored. Afterwards the stream is eof(); it throws nothing for
    /// that, for any value of its exceptions().
    outcome<put_receipt> put_stream(std::istream &stream, const put_options &options = {}) const
    {
        const detail::silenced silence(stream);
        return put_callback(
            [&](bytes_span room) -> std::optional<std::size_t> {
                // A stream that was never opened has failed without reaching an end.
                const auto failed = [&] { return stream.bad() || (stream.fail() && !stream.eof()); };
                if (failed()) {
                    return std::nullopt;
                }
                constexpr std::size_t most = std::numeric_limits<std::streamsize>::max();
                stream.read(reinterpret_cast<char *>(room.data()),
                            static_cast<std::streamsize>(room.size() < most ? room.size() : most));
                return failed() ? std::nullopt : std::optional(static_cast<std::size_t>(stream.gcount()));
            },
            options);
    }

    /// Reads a whole blob into memory, as std::vector<std::uint8_t>, std::string or any other container of
    /// bytes with resize(). For large blobs, use open_reader.
    template <class Bytes = std::vector<std::uint8_t>>
    outcome<Bytes> get(const blob_id &id, const progress_callback &progress = nullptr) const
    {
        const auto options = detail::raw(progress);
        Bytes bytes;
        return detail::run<Bytes>(
            [&](auto error) {
                // An id may be invented: check that the blob exists before allocating memory for the size in
                // its id.
                graviton_blob_stat stat = GRAVITON_BLOB_STAT_INIT;
                constexpr std::uint64_t much = 1 << 20;
                const auto known = id.size() < much ? GRAVITON_OK : graviton_store_stat(raw_.get(), &id.raw(), &stat, error);
                if (known != GRAVITON_OK) {
                    return known;
                }
                bytes.resize(static_cast<std::size_t>(id.size()));
                const bytes_span room(bytes);
                return graviton_store_get(raw_.get(), &id.raw(), room.data(), room.size(), &options, nullptr, error);
            },
            [&] { return std::move(bytes); });
    }

    /// Reads a whole blob into memory and returns its length. After an error the content of the memory is
    /// undefined.
    outcome<std::size_t> get_into(const blob_id &id, bytes_span room, const progress_callback &progress = nullptr) const
    {
        const auto options = detail::raw(progress);
        std::size_t count = 0;
        return detail::run<std::size_t>(
            [&](auto error) {
                return graviton_store_get(raw_.get(), &id.raw(), room.data(), room.size(), &options, &count, error);
            },
            [&] { return count; });
    }

    /// Writes a whole blob to a file descriptor at its current position, and does not close it.
    outcome<void> get_fd(const blob_id &id, int fd, const progress_callback &progress = nullptr) const
    {
        const auto options = detail::raw(progress);
        return detail::run([&](auto error) { return graviton_store_get_fd(raw_.get(), &id.raw(), fd, &options, error); });
    }

    /// Reads bytes of a blob from `offset` and returns their number: less than the buffer's size only at the
    /// end.
    outcome<std::size_t> read_range(const blob_id &id, std::uint64_t offset, bytes_span room) const
    {
        std::size_t count = 0;
        return detail::run<std::size_t>(
            [&](auto error) {
                return graviton_store_read_range(raw_.get(), &id.raw(), offset, room.data(), room.size(), &count, error);
            },
            [&] { return count; });
    }

    /// Reads a whole block, verified; errc::not_found if it is not stored. A block that no blob references
    /// may be collected at any moment.
    outcome<std::vector<std::uint8_t>> read_block(const block_key &key) const
    {
        std::vector<std::uint8_t> bytes;
        return detail::run<std::vector<std::uint8_t>>(
            [&](auto error) {
                // An invented key may be too large; the call then reports that.
                bytes.resize(key.size() <= GRAVITON_BLOCK_SIZE_MAX ? static_cast<std::size_t>(key.size()) : 0);
                return graviton_store_read_block(raw_.get(), &key.raw(), bytes.data(), bytes.size(), nullptr, error);
            },
            [&] { return std::move(bytes); });
    }

    /// Opens a blob for reading; errc::not_found if there is no such blob.
    outcome<reader> open_reader(const blob_id &id) const
    {
        graviton_reader *raw = nullptr;
        return detail::run<reader>([&](auto error) { return graviton_reader_open(raw_.get(), &id.raw(), &raw, error); },
                                   [&] { return reader(raw, raw_.get_deleter().cancel); });
    }

    /// Opens a writer; with `expected`, it commits only content with this id.
    outcome<writer> open_writer(const std::optional<blob_id> &expected = std::nullopt) const
    {
        graviton_writer *raw = nullptr;
        return detail::run<writer>(
            [&](auto error) { return graviton_writer_open(raw_.get(), detail::or_null(expected), &raw, error); },
            [&] { return writer(raw, raw_.get_deleter().cancel); });
    }

    /// Iterates over all live blobs, or those after `after`.
    outcome<graviton::list> list(const std::optional<blob_id> &after = std::nullopt) const
    {
        graviton_list *raw = nullptr;
        return detail::run<graviton::list>(
            [&](auto error) { return graviton_list_open(raw_.get(), detail::or_null(after), &raw, error); },
            [&] { return graviton::list(raw, raw_.get_deleter().cancel); });
    }

    /// Iterates over the blocks of a blob, from the one that holds the byte at `from`.
    outcome<graviton::manifest> manifest(const blob_id &id, std::uint64_t from = 0) const
    {
        graviton_manifest *raw = nullptr;
        return detail::run<graviton::manifest>(
            [&](auto error) { return graviton_manifest_open(raw_.get(), &id.raw(), from, &raw, error); },
            [&] { return graviton::manifest(raw, raw_.get_deleter().cancel); });
    }

    /// Gets the metadata of a blob; errc::not_found if there is no such blob.
    outcome<blob_stat> stat(const blob_id &id) const
    {
        graviton_blob_stat stat = GRAVITON_BLOB_STAT_INIT;
        return detail::run<blob_stat>([&](auto error) { return graviton_store_stat(raw_.get(), &id.raw(), &stat, error); },
                                      [&] { return blob_stat(stat); });
    }

    /// Whether a blob exists.
    outcome<bool> exists(const blob_id &id) const
    {
        std::int32_t exists = 0;
        return detail::run<bool>([&](auto error) { return graviton_store_exists(raw_.get(), &id.raw(), &exists, error); },
                                 [&] { return exists != 0; });
    }

    /// Deletes a blob (graviton_store_delete); it can be restored for the grace period.
    outcome<void> remove(const blob_id &id) const
    {
        return detail::run([&](auto error) { return graviton_store_delete(raw_.get(), &id.raw(), error); });
    }

    /// Restores a deleted blob; this works at least for the grace period.
    outcome<void> restore(const blob_id &id) const
    {
        return detail::run([&](auto error) { return graviton_store_restore(raw_.get(), &id.raw(), error); });
    }

    /// Gets the totals of the store. Takes time proportional to the number of blobs and blocks.
    outcome<store_stats> stats() const
    {
        graviton_store_stats stats = GRAVITON_STORE_STATS_INIT;
        return detail::run<store_stats>([&](auto error) { return graviton_store_stats_get(raw_.get(), &stats, error); },
                                        [&] { return stats; });
    }

    /// Writes a consistent copy of the manifests in SQLite to a new file.
    outcome<void> backup(const std::filesystem::path &path) const
    {
        return detail::run([&](auto error) {
            return graviton_store_backup(raw_.get(), path.native().data(), path.native().size(), error);
        });
    }

    /// Deletes unreferenced blocks. The callback runs after each step.
    outcome<gc_report> gc(const gc_options &options = {}, const std::function<flow(const gc_report &)> &callback = nullptr) const
    {
        graviton_gc_options raw = GRAVITON_GC_OPTIONS_INIT;
        if (options.grace) {
            // A negative grace is an error, and must not be confused with GRAVITON_GC_NO_GRACE.
            const auto grace = options.grace->count();
            raw.grace_ms = grace == 0 ? GRAVITON_GC_NO_GRACE
                           : grace < 0 ? std::numeric_limits<std::int64_t>::min()
                                       : grace;
        }
        // A negative time becomes a short one; 0 would mean no limit.
        raw.max_time_ms = options.max_time.count() < 0 ? 1 : static_cast<std::uint64_t>(options.max_time.count());
        raw.max_blocks = options.max_blocks;
        raw.max_bytes = options.max_bytes;
        raw.blocks_per_second = options.blocks_per_second;
        raw.dry_run = detail::flag(options.dry_run);
        detail::gc_work work(GRAVITON_GC_REPORT_INIT, callback);
        return detail::run<gc_report>(
            [&](auto error) {
                return graviton_store_gc(raw_.get(), &raw, detail::gc_work::tell<graviton_blob_id>, &work, &work.report, error);
            },
            [&] { return std::move(work.report); });
    }

    /// Moves all stored blocks into a layout: `packs`, or `files` of their own. The callback runs after each
    /// step. After an interruption, call it again for the rest.
    outcome<repack_report> repack(std::string_view to,
                                  const std::function<flow(const repack_report &)> &callback = nullptr) const
    {
        graviton_repack_report report = GRAVITON_REPACK_REPORT_INIT;
        return detail::run<repack_report>(
            [&](auto error) {
                return graviton_store_repack(raw_.get(), to.data(), to.size(), callback ? detail::tell_repack : nullptr,
                                             const_cast<void *>(static_cast<const void *>(&callback)), &report, error);
            },
            [&] { return report; });
    }

    /// Checks that everything is there and intact. The callback gets each finding, and the progress from time
    /// to time. Findings are not errors: the report's `clean` says whether a live blob is damaged.
    outcome<verify_report> verify(const verify_options &options = {},
                                  const std::function<flow(const verify_event &)> &callback = nullptr) const
    {
        const auto ids = options.ids ? std::optional(detail::raw_ids(*options.ids)) : std::nullopt;
        graviton_verify_options raw = GRAVITON_VERIFY_OPTIONS_INIT;
        raw.deep = detail::flag(options.deep);
        raw.adopt = detail::flag(options.adopt);
        raw.rebuild = detail::flag(options.rebuild);
        if (ids) {
            raw.ids = ids->data();
            raw.id_count = ids->size();
        }
        raw.bytes_per_second = options.bytes_per_second;
        raw.from = options.from.data();
        raw.from_length = options.from.size();
        graviton_verify_report report = GRAVITON_VERIFY_REPORT_INIT;
        return detail::run<verify_report>(
            [&](auto error) {
                return graviton_store_verify(raw_.get(), &raw, callback ? detail::tell_verify : nullptr,
                                             const_cast<void *>(static_cast<const void *>(&callback)), &report, error);
            },
            [&] { return report; });
    }

    /// Copies all blobs from another store of any kind. Transfers only the blocks that are missing.
    outcome<copy_report> copy_from(const store &other, const std::function<flow(const copy_report &)> &callback = nullptr) const
    {
        return copy_with(other, GRAVITON_COPY_OPTIONS_INIT, callback);
    }

    /// Copies these blobs from another store of any kind, and none if the vector is empty. Transfers only the
    /// blocks that are missing.
    outcome<copy_report> copy_from(const store &other, const std::vector<blob_id> &ids,
                                   const std::function<flow(const copy_report &)> &callback = nullptr) const
    {
        const detail::raw_ids named(ids);
        graviton_copy_options raw = GRAVITON_COPY_OPTIONS_INIT;
        raw.ids = named.data();
        raw.id_count = named.size();
        return copy_with(other, raw, callback);
    }

    /// Replaces missing and damaged blocks by verified blocks of another store.
    outcome<repair_report> repair_from(const store &other,
                                       const std::function<flow(const repair_report &)> &callback = nullptr) const
    {
        detail::repair_work work(GRAVITON_REPAIR_REPORT_INIT, callback);
        return detail::run<repair_report>(
            [&](auto error) {
                return graviton_store_repair_from(raw_.get(), other.raw_.get(), detail::repair_work::tell<graviton_block_key>,
                                                  &work, &work.report, error);
            },
            [&] { return std::move(work.report); });
    }

    /// The handle of graviton.h; this object still owns it.
    graviton_store *c_handle() const noexcept { return raw_.get(); }

private:
    template <class Call>
    static outcome<put_receipt> put_with(const put_options &options, Call call)
    {
        const auto raw = detail::raw(options);
        graviton_put_receipt receipt = GRAVITON_PUT_RECEIPT_INIT;
        return detail::run<put_receipt>([&](auto error) { return call(&raw, &receipt, error); },
                                        [&] { return put_receipt(receipt); });
    }

    outcome<copy_report> copy_with(const store &other, const graviton_copy_options &options,
                                   const std::function<flow(const copy_report &)> &callback) const
    {
        detail::copy_work work(GRAVITON_COPY_REPORT_INIT, callback);
        return detail::run<copy_report>(
            [&](auto error) {
                return graviton_store_copy_from(raw_.get(), other.raw_.get(), &options,
                                                detail::copy_work::tell<graviton_blob_id>, &work, &work.report, error);
            },
            [&] { return std::move(work.report); });
    }

    detail::handle<graviton_store, graviton_store_free> raw_;
};

} // inline namespace
} // namespace graviton

#endif // GRAVITON_STORE_HPP
