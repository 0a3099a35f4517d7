// Part of graviton.hpp: errors of calls.

#ifndef GRAVITON_ERROR_HPP
#define GRAVITON_ERROR_HPP

#include "../graviton.h"

#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <string_view>
#include <vector>

#if !defined(GRAVITON_NO_EXCEPTIONS) && !defined(__cpp_exceptions) && !defined(_CPPUNWIND)
/// Defined where failures are returned as result<T> instead of being thrown.
#define GRAVITON_NO_EXCEPTIONS 1
#endif

// Two names for the linker, because files with and without exceptions have different types of the same name.
#ifdef GRAVITON_NO_EXCEPTIONS
#define GRAVITON_ERROR_STYLE by_result
#else
#define GRAVITON_ERROR_STYLE by_exception
#endif

namespace graviton {
inline namespace GRAVITON_ERROR_STYLE {

/// The error codes: the GRAVITON_ERROR_... of graviton.h, with their numbers. A later version may add more.
enum class errc : std::int32_t {
    ok = GRAVITON_OK,
    invalid_argument = GRAVITON_ERROR_INVALID_ARGUMENT,
    invalid_id = GRAVITON_ERROR_INVALID_ID,
    not_found = GRAVITON_ERROR_NOT_FOUND,
    digest_mismatch = GRAVITON_ERROR_DIGEST_MISMATCH,
    too_large = GRAVITON_ERROR_TOO_LARGE,
    range_not_satisfiable = GRAVITON_ERROR_RANGE_NOT_SATISFIABLE,
    unauthorized = GRAVITON_ERROR_UNAUTHORIZED,
    forbidden = GRAVITON_ERROR_FORBIDDEN,
    corrupt_block = GRAVITON_ERROR_CORRUPT_BLOCK,
    missing_block = GRAVITON_ERROR_MISSING_BLOCK,
    backend_unavailable = GRAVITON_ERROR_BACKEND_UNAVAILABLE,
    writer_expired = GRAVITON_ERROR_WRITER_EXPIRED,
    no_space = GRAVITON_ERROR_NO_SPACE,
    quota_exceeded = GRAVITON_ERROR_QUOTA_EXCEEDED,
    method_not_allowed = GRAVITON_ERROR_METHOD_NOT_ALLOWED,
    timeout = GRAVITON_ERROR_TIMEOUT,
    length_required = GRAVITON_ERROR_LENGTH_REQUIRED,
    unsupported = GRAVITON_ERROR_UNSUPPORTED,
    rate_limited = GRAVITON_ERROR_RATE_LIMITED,
    config = GRAVITON_ERROR_CONFIG,
    version = GRAVITON_ERROR_VERSION,
    forked = GRAVITON_ERROR_FORKED,
    closed = GRAVITON_ERROR_CLOSED,
    cancelled = GRAVITON_ERROR_CANCELLED,
    io = GRAVITON_ERROR_IO,
    latched = GRAVITON_ERROR_LATCHED,
    internal = GRAVITON_ERROR_INTERNAL,
    corrupt_database = GRAVITON_ERROR_CORRUPT_DATABASE,
    overloaded = GRAVITON_ERROR_OVERLOADED,
    conflict = GRAVITON_ERROR_CONFLICT
};

/// The stable name of a code, such as "not-found"; empty for an unknown number.
inline std::string_view name(errc code) noexcept
{
    const char *text = graviton_status_name(static_cast<graviton_status>(code));
    return text == nullptr ? std::string_view() : std::string_view(text);
}

/// Whether the same call may succeed later without a change by the caller.
inline bool is_retryable(errc code) noexcept
{
    return graviton_status_is_retryable(static_cast<graviton_status>(code)) != 0;
}

/// All error codes that the library knows.
inline std::vector<errc> error_codes()
{
    std::vector<errc> codes(graviton_status_count());
    for (std::size_t index = 0; index < codes.size(); ++index) {
        codes[index] = static_cast<errc>(graviton_status_at(index));
    }
    return codes;
}

/// The reason why a call failed. Copies share their content and may be used by any thread.
class error : public std::exception {
public:
    /// Takes over an error of graviton.h, which may be NULL, from a call that returned `status`.
    error(graviton_status status, graviton_error *raw) : raw_(raw, graviton_error_free), code_(static_cast<errc>(status)) {}

    /// The error code.
    errc code() const noexcept { return code_; }
    /// The message: the operation, its object, and the reason for the failure. Valid as long as this error or
    /// a copy.
    const char *what() const noexcept override { return raw_ ? graviton_error_message(raw_.get()) : name(code_).data(); }
    /// The advice, or empty. Valid as long as this error or a copy.
    const char *advice() const noexcept { return graviton_error_advice(raw_.get()); }
    /// Whether the same call may succeed later without a change by the caller.
    bool retryable() const noexcept { return graviton_error_is_retryable(raw_.get()) != 0; }
    /// The operating system's errno that caused the failure, otherwise 0.
    int os_error() const noexcept { return graviton_error_errno(raw_.get()); }

private:
    std::shared_ptr<graviton_error> raw_;
    errc code_;
};

} // inline namespace
} // namespace graviton

#endif // GRAVITON_ERROR_HPP
