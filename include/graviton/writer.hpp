// Part of graviton.hpp: writing a blob.

#ifndef GRAVITON_WRITER_HPP
#define GRAVITON_WRITER_HPP

#include "callback.hpp"

namespace graviton {
inline namespace GRAVITON_ERROR_STYLE {

/// A blob being written. An unfinished blob leaves nothing. One thread at a time.
class writer {
public:
    /// Takes over a handle of graviton.h.
    explicit writer(graviton_writer *raw, detail::cancel_keeper cancel = nullptr) noexcept : raw_(raw, {std::move(cancel)}) {}

    /// Writes all of the next bytes, or fails; after a failure every later call fails too.
    outcome<void> write(bytes_view bytes)
    {
        return detail::run(
            [&](auto error) { return graviton_writer_write(raw_.get(), bytes.data(), bytes.size(), error); });
    }

    /// The number of bytes written so far.
    outcome<std::uint64_t> size() const
    {
        std::uint64_t size = 0;
        return detail::run<std::uint64_t>([&](auto error) { return graviton_writer_size(raw_.get(), &size, error); },
                                          [&] { return size; });
    }

    /// Commits the blob. Nothing can be written after that.
    outcome<put_receipt> finish()
    {
        graviton_put_receipt receipt = GRAVITON_PUT_RECEIPT_INIT;
        return detail::run<put_receipt>([&](auto error) { return graviton_writer_finish(raw_.get(), &receipt, error); },
                                        [&] { return put_receipt(receipt); });
    }

    /// The handle of graviton.h; this object still owns it.
    graviton_writer *c_handle() const noexcept { return raw_.get(); }

private:
    detail::handle<graviton_writer, graviton_writer_free> raw_;
};

} // inline namespace
} // namespace graviton

#endif // GRAVITON_WRITER_HPP
