// Part of graviton.hpp, and not of its interface: functions that C calls, which call the program's callbacks.

#ifndef GRAVITON_CALLBACK_HPP
#define GRAVITON_CALLBACK_HPP

#include "types.hpp"

#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace graviton {
inline namespace GRAVITON_ERROR_STYLE {

namespace detail {

/// The cancel callback of a store, which lives as long as a handle may call it.
using cancel_keeper = std::shared_ptr<const cancel_callback>;

/// Frees a handle, and then the cancel callback that the handle may have called. An assignment to a
/// unique_ptr frees the old handle before it releases the old one of these.
template <class Raw, void (*Free)(Raw *)>
struct freed_by {
    cancel_keeper cancel;

    void operator()(Raw *raw) const noexcept
    {
        Free(raw);
        forget();
    }
};

/// A handle of graviton.h.
template <class Raw, void (*Free)(Raw *)>
using handle = std::unique_ptr<Raw, freed_by<Raw, Free>>;

inline cancel_keeper keep(cancel_callback callback)
{
    return callback ? std::make_shared<const cancel_callback>(std::move(callback)) : nullptr;
}

inline std::int32_t ask_cancel(void *userdata) noexcept
{
    return call_back([&] { return (*static_cast<const cancel_callback *>(userdata))(); });
}

inline graviton_cancel_callback cancel_function(const cancel_keeper &cancel) noexcept
{
    return cancel ? ask_cancel : nullptr;
}

inline void *cancel_userdata(const cancel_keeper &cancel) noexcept { return const_cast<cancel_callback *>(cancel.get()); }

inline std::int32_t tell_progress(void *userdata, std::uint64_t done, std::uint64_t total) noexcept
{
    return call_back([&] {
        const auto &callback = *static_cast<const progress_callback *>(userdata);
        return callback(done, total == GRAVITON_SIZE_UNKNOWN ? std::nullopt : std::optional(total));
    });
}

/// Options of a put, as graviton.h expects them; borrows from `options`.
inline graviton_put_options raw(const put_options &options) noexcept
{
    graviton_put_options raw = GRAVITON_PUT_OPTIONS_INIT;
    raw.expected = or_null(options.expected);
    if (options.progress) {
        raw.progress = tell_progress;
        raw.progress_userdata = const_cast<progress_callback *>(&options.progress);
    }
    return raw;
}

/// Options of a get, as graviton.h expects them; borrows from `progress`.
inline graviton_get_options raw(const progress_callback &progress) noexcept
{
    graviton_get_options raw = GRAVITON_GET_OPTIONS_INIT;
    if (progress) {
        raw.progress = tell_progress;
        raw.progress_userdata = const_cast<progress_callback *>(&progress);
    }
    return raw;
}

inline std::int32_t read_source(void *userdata, std::uint8_t *buffer, std::size_t capacity, std::size_t *count) noexcept
{
    return call_back([&] {
        const auto read = (*static_cast<const read_callback *>(userdata))(bytes_span(buffer, capacity));
        *count = read.value_or(0);
        return read ? flow::go_on : flow::cancel;
    });
}

/// Copies the fields of a structure that both sides know: another version of the library has another length.
template <class Raw>
void take(Raw &ours, const Raw &theirs) noexcept
{
    std::memcpy(&ours, &theirs, theirs.struct_size < sizeof(Raw) ? theirs.struct_size : sizeof(Raw));
    ours.struct_size = sizeof(Raw);
}

/// A long operation in progress: its report with the names in it, and the callback.
template <class Report, class Raw, class Name, std::vector<Name> Report::*Names, std::size_t Raw::*Count>
struct work {
    Report report;
    const std::function<flow(const Report &)> &callback;

    work(const Raw &empty, const std::function<flow(const Report &)> &told) : report{empty, {}}, callback(told) {}

    template <class RawName>
    static std::int32_t tell(void *userdata, const Raw *report, const RawName *names) noexcept
    {
        return call_back([&] {
            auto &self = *static_cast<work *>(userdata);
            take(static_cast<Raw &>(self.report), *report);
            self.report.*Names = copied<Name>(names, report->*Count);
            return self.callback ? self.callback(self.report) : flow::go_on;
        });
    }
};

using gc_work = work<gc_report, graviton_gc_report, blob_id, &gc_report::named, &graviton_gc_report::named_count>;
using copy_work = work<copy_report, graviton_copy_report, blob_id, &copy_report::damaged, &graviton_copy_report::damaged_count>;
using repair_work =
    work<repair_report, graviton_repair_report, block_key, &repair_report::lost, &graviton_repair_report::lost_count>;

inline std::int32_t tell_repack(void *userdata, const graviton_repack_report *report) noexcept
{
    return call_back([&] {
        repack_report ours = GRAVITON_REPACK_REPORT_INIT;
        take(ours, *report);
        return (*static_cast<const std::function<flow(const repack_report &)> *>(userdata))(ours);
    });
}

inline std::int32_t tell_verify(void *userdata, const graviton_verify_event *event) noexcept
{
    return call_back([&] {
        return (*static_cast<const std::function<flow(const verify_event &)> *>(userdata))(verify_event(*event));
    });
}

} // namespace detail

} // inline namespace
} // namespace graviton

#endif // GRAVITON_CALLBACK_HPP
