// Part of graviton.hpp: reading a blob.

#ifndef GRAVITON_READER_HPP
#define GRAVITON_READER_HPP

#include "callback.hpp"

#include <ios>

namespace graviton {
inline namespace GRAVITON_ERROR_STYLE {

namespace detail {

inline std::int32_t whence(std::ios_base::seekdir from) noexcept
{
    return from == std::ios_base::beg ? GRAVITON_SEEK_SET : from == std::ios_base::cur ? GRAVITON_SEEK_CUR : GRAVITON_SEEK_END;
}

} // namespace detail

/// A blob being read: verified bytes. Any number of threads may call read_at at once; calls that use the
/// position are for one thread at a time.
class reader {
public:
    /// Takes over a handle of graviton.h.
    explicit reader(graviton_reader *raw, detail::cancel_keeper cancel = nullptr) noexcept : raw_(raw, {std::move(cancel)}) {}

    /// Reads the next bytes and returns their number: 0 only at the end (or for an empty buffer), often less
    /// than the buffer's size.
    outcome<std::size_t> read(bytes_span room)
    {
        std::size_t count = 0;
        return detail::run<std::size_t>(
            [&](auto error) { return graviton_reader_read(raw_.get(), room.data(), room.size(), &count, error); },
            [&] { return count; });
    }

    /// Reads bytes at an offset and returns their number: less than the buffer's size only at the end. Does
    /// not move the position.
    outcome<std::size_t> read_at(std::uint64_t offset, bytes_span room) const
    {
        std::size_t count = 0;
        return detail::run<std::size_t>(
            [&](auto error) { return graviton_reader_read_at(raw_.get(), offset, room.data(), room.size(), &count, error); },
            [&] { return count; });
    }

    /// Moves the position by `offset` bytes from the start, the current position (std::ios_base::cur) or the
    /// end, and returns the new position.
    outcome<std::uint64_t> seek(std::int64_t offset, std::ios_base::seekdir from = std::ios_base::beg)
    {
        std::uint64_t position = 0;
        return detail::run<std::uint64_t>(
            [&](auto error) { return graviton_reader_seek(raw_.get(), offset, detail::whence(from), &position, error); },
            [&] { return position; });
    }

    /// The position, in bytes from the start.
    outcome<std::uint64_t> tell() const
    {
        std::uint64_t position = 0;
        return detail::run<std::uint64_t>([&](auto error) { return graviton_reader_tell(raw_.get(), &position, error); },
                                          [&] { return position; });
    }

    /// The size of the blob in bytes. From any thread.
    outcome<std::uint64_t> size() const
    {
        std::uint64_t size = 0;
        return detail::run<std::uint64_t>([&](auto error) { return graviton_reader_size(raw_.get(), &size, error); },
                                          [&] { return size; });
    }

    /// The id of the blob. From any thread.
    outcome<blob_id> id() const
    {
        graviton_blob_id raw{};
        return detail::run<blob_id>([&](auto error) { return graviton_reader_id(raw_.get(), &raw, error); },
                                    [&] { return blob_id(raw); });
    }

    /// The handle of graviton.h; this object still owns it.
    graviton_reader *c_handle() const noexcept { return raw_.get(); }

private:
    detail::handle<graviton_reader, graviton_reader_free> raw_;
};

} // inline namespace
} // namespace graviton

#endif // GRAVITON_READER_HPP
