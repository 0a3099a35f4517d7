// Part of graviton.hpp: blobs as standard streams.

#ifndef GRAVITON_STREAM_HPP
#define GRAVITON_STREAM_HPP

#include "reader.hpp"
#include "writer.hpp"

#include <cstring>
#include <istream>
#include <optional>
#include <ostream>
#include <streambuf>
#include <variant>
#include <vector>

namespace graviton {
inline namespace GRAVITON_ERROR_STYLE {

namespace detail {

/// Failures of the stream buffers. With exceptions they throw the graviton::error: a stream turns it into
/// badbit (and rethrows it, if its exceptions() say so), and a direct user of the buffer gets it. Without
/// exceptions they set badbit of their stream.
class failing_buffer : public std::streambuf {
public:
    /// The failure, if there was one.
    const std::optional<graviton::error> &failure() const noexcept { return failure_; }

protected:
    explicit failing_buffer(std::ios *stream) noexcept : stream_(stream) {}

    /// Whether there is a value; it is moved into `value`.
    template <class T, class Body>
    bool got(T &value, Body body)
    {
#ifdef GRAVITON_NO_EXCEPTIONS
        if (!failure_) {
            auto made = body();
            if (made) {
                value = std::move(*made);
                return true;
            }
            failure_ = made.error();
        }
        if (stream_ != nullptr) {
            stream_->setstate(std::ios_base::badbit);
        }
        return false;
#else
        if (failure_) {
            throw *failure_;
        }
        try {
            value = body();
            return true;
        } catch (const graviton::error &why) {
            failure_ = why;
            throw;
        }
#endif
    }

private:
    std::optional<graviton::error> failure_;
    // With exceptions, the stream notices failures itself.
    [[maybe_unused]] std::ios *stream_;
};

} // namespace detail

/// A std::streambuf over a reader, which it owns. Seekable. Large reads go straight into the caller's memory.
class reader_buffer : public detail::failing_buffer {
public:
    /// `stream`, if any, gets badbit if there are no exceptions.
    explicit reader_buffer(graviton::reader reader, std::ios *stream = nullptr)
        : failing_buffer(stream), reader_(std::move(reader)), buffer_(recommended_buffer_size())
    {
    }

    /// The reader; its position is behind the buffered bytes.
    graviton::reader &reader() noexcept { return reader_; }

protected:
    int_type underflow() override
    {
        std::size_t count = 0;
        if (!got(count, [&] { return reader_.read(buffer_); }) || count == 0) {
            return traits_type::eof();
        }
        setg(buffer_.data(), buffer_.data(), buffer_.data() + count);
        return traits_type::to_int_type(*gptr());
    }

    std::streamsize xsgetn(char *to, std::streamsize wanted) override
    {
        std::streamsize done = 0;
        while (done < wanted) {
            if (gptr() < egptr()) {
                const std::streamsize some = egptr() - gptr() < wanted - done ? egptr() - gptr() : wanted - done;
                std::memcpy(to + done, gptr(), static_cast<std::size_t>(some));
                setg(eback(), gptr() + some, egptr());
                done += some;
            } else if (wanted - done >= static_cast<std::streamsize>(buffer_.size())) {
                std::size_t count = 0;
                const bytes_span room(to + done, static_cast<std::size_t>(wanted - done));
                if (!got(count, [&] { return reader_.read(room); }) || count == 0) {
                    break;
                }
                done += static_cast<std::streamsize>(count);
            } else if (traits_type::eq_int_type(underflow(), traits_type::eof())) {
                break;
            }
        }
        return done;
    }

    pos_type seekoff(off_type offset, std::ios_base::seekdir from, std::ios_base::openmode which) override
    {
        if ((which & std::ios_base::in) == 0) {
            return pos_type(off_type(-1));
        }
        // The reader is ahead of the caller.
        const off_type ahead = egptr() - gptr();
        std::uint64_t position = 0;
        graviton_status status = GRAVITON_OK;
        if (from == std::ios_base::cur && offset == 0) {
            // A query of the position, which must not discard the buffered bytes.
            status = graviton_reader_tell(reader_.c_handle(), &position, nullptr);
            position -= static_cast<std::uint64_t>(ahead);
        } else {
            offset -= from == std::ios_base::cur ? ahead : 0;
            status = graviton_reader_seek(reader_.c_handle(), offset, detail::whence(from), &position, nullptr);
            if (status == GRAVITON_OK) {
                setg(nullptr, nullptr, nullptr);
            }
        }
        detail::rethrow();
        // An impossible position is no failure of the blob; it sets failbit of the stream.
        return status == GRAVITON_OK ? pos_type(static_cast<off_type>(position)) : pos_type(off_type(-1));
    }

    pos_type seekpos(pos_type position, std::ios_base::openmode which) override
    {
        return seekoff(off_type(position), std::ios_base::beg, which);
    }

private:
    graviton::reader reader_;
    std::vector<char> buffer_;
};

/// A std::streambuf over a writer, which it owns. Large writes go straight from the caller's memory.
class writer_buffer : public detail::failing_buffer {
public:
    /// `stream`, if any, gets badbit if there are no exceptions.
    explicit writer_buffer(graviton::writer writer, std::ios *stream = nullptr)
        : failing_buffer(stream), writer_(std::move(writer)), buffer_(recommended_buffer_size())
    {
        setp(buffer_.data(), buffer_.data() + buffer_.size());
    }

    /// Writes the buffered bytes and commits the blob.
    outcome<put_receipt> finish()
    {
#ifdef GRAVITON_NO_EXCEPTIONS
        if (!flush()) {
            return *failure();
        }
#else
        flush();
#endif
        return writer_.finish();
    }

protected:
    int_type overflow(int_type next) override
    {
        if (!flush()) {
            return traits_type::eof();
        }
        if (!traits_type::eq_int_type(next, traits_type::eof())) {
            sputc(traits_type::to_char_type(next));
        }
        return traits_type::not_eof(next);
    }

    std::streamsize xsputn(const char *from, std::streamsize count) override
    {
        const auto size = static_cast<std::size_t>(count);
        if (count <= epptr() - pptr()) {
            std::memcpy(pptr(), from, size);
            pbump(static_cast<int>(count));
            return count;
        }
        if (!flush()) {
            return 0;
        }
        if (size < buffer_.size()) {
            return xsputn(from, count);
        }
        return write(bytes_view(from, size)) ? count : 0;
    }

    int sync() override { return flush() ? 0 : -1; }

    /// Supports only a query of the position: written bytes cannot change.
    pos_type seekoff(off_type offset, std::ios_base::seekdir from, std::ios_base::openmode which) override
    {
        std::uint64_t written = 0;
        if ((which & std::ios_base::out) == 0 || from != std::ios_base::cur || offset != 0
            || graviton_writer_size(writer_.c_handle(), &written, nullptr) != GRAVITON_OK) {
            return pos_type(off_type(-1));
        }
        return pos_type(static_cast<off_type>(written) + (pptr() - pbase()));
    }

private:
    bool flush()
    {
        const bytes_view waiting(pbase(), static_cast<std::size_t>(pptr() - pbase()));
        // The buffer is reset first, because the write can fail: bytes of a failed write are not written
        // twice.
        setp(buffer_.data(), buffer_.data() + buffer_.size());
        return write(waiting);
    }

    bool write(bytes_view bytes)
    {
        std::monostate written;
        return got(written, [&]() -> outcome<std::monostate> {
            return detail::run<std::monostate>(
                [&](auto error) {
                    return graviton_writer_write(writer_.c_handle(), bytes.data(), bytes.size(), error);
                },
                [] { return std::monostate(); });
        });
    }

    graviton::writer writer_;
    std::vector<char> buffer_;
};

/// A blob as a std::istream: `graviton::istream in(store.open_reader(id));`. After a failure, bad() is true
/// and failure() returns it; with `in.exceptions(std::ios::badbit)` it is thrown as graviton::error.
class istream : public std::istream {
public:
    /// Takes over the reader.
    explicit istream(graviton::reader reader) : std::istream(nullptr), buffer_(std::move(reader), this) { rdbuf(&buffer_); }

    /// The failure behind bad(), if there was one.
    const std::optional<graviton::error> &failure() const noexcept { return buffer_.failure(); }

private:
    reader_buffer buffer_;
};

/// A std::ostream that makes a blob: `graviton::ostream out(store.open_writer()); out << ...; auto put =
/// out.finish();`. An unfinished blob leaves nothing. Failures are as with istream; after one, finish fails
/// too.
class ostream : public std::ostream {
public:
    /// Takes over the writer.
    explicit ostream(graviton::writer writer) : std::ostream(nullptr), buffer_(std::move(writer), this) { rdbuf(&buffer_); }

    /// Writes the buffered bytes and commits the blob.
    outcome<put_receipt> finish() { return buffer_.finish(); }

    /// The failure behind bad(), if there was one.
    const std::optional<graviton::error> &failure() const noexcept { return buffer_.failure(); }

private:
    writer_buffer buffer_;
};

} // inline namespace
} // namespace graviton

#endif // GRAVITON_STREAM_HPP
