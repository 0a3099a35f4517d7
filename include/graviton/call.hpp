// Part of graviton.hpp, and not of its interface: calls into C, and callbacks from C. No exception passes
// through C.

#ifndef GRAVITON_CALL_HPP
#define GRAVITON_CALL_HPP

#include "outcome.hpp"

#include <cstdint>
#include <exception>
#include <memory>
#include <utility>

namespace graviton {
inline namespace GRAVITON_ERROR_STYLE {

/// The decision of a callback.
enum class flow : std::int32_t {
    /// Continue.
    go_on = 0,
    /// For gc, verify and similar calls: stop early, with a report that says so. Elsewhere the same as
    /// cancel.
    stop = GRAVITON_STOP,
    /// End with errc::cancelled.
    cancel = 1
};

namespace detail {

#ifdef GRAVITON_NO_EXCEPTIONS

template <class T>
result<T> failed(error why)
{
    return result<T>(std::move(why));
}

template <class Body>
std::int32_t call_back(Body body) noexcept
{
    return static_cast<std::int32_t>(body());
}

inline void rethrow() noexcept {}
inline void forget() noexcept {}

#else

template <class T>
[[noreturn]] T failed(error why)
{
    throw why;
}

/// The exception of a callback during the call that this thread makes. It must not pass through C, and a
/// callback runs on the thread that makes the call.
inline std::exception_ptr &thrown() noexcept
{
    static thread_local std::exception_ptr slot;
    return slot;
}

/// Runs a callback. Once one has thrown, no other one runs until the call is over.
template <class Body>
std::int32_t call_back(Body body) noexcept
{
    if (thrown()) {
        return static_cast<std::int32_t>(flow::cancel);
    }
    try {
        return static_cast<std::int32_t>(body());
    } catch (...) {
        thrown() = std::current_exception();
        return static_cast<std::int32_t>(flow::cancel);
    }
}

/// Called after each call: rethrows the exception of a callback.
inline void rethrow()
{
    if (thrown()) {
        std::rethrow_exception(std::exchange(thrown(), nullptr));
    }
}

/// Called after a call that may not throw.
inline void forget() noexcept
{
    thrown() = nullptr;
}

#endif

/// Makes a call, and returns the result of `value`.
template <class T, class Call, class Value>
outcome<T> run(Call call, Value value)
{
    graviton_error *raw = nullptr;
    const graviton_status status = call(&raw);
    if (status != GRAVITON_OK) {
        error why(status, raw);
        rethrow();
        return failed<T>(std::move(why));
    }
    rethrow();
    return value();
}

/// Makes a call without a result.
template <class Call>
outcome<void> run(Call call)
{
    return run<void>(call, [] { return outcome<void>(); });
}

/// A flag as graviton.h expects it.
inline std::int32_t flag(bool value) noexcept { return value ? 1 : 0; }

} // namespace detail

} // inline namespace
} // namespace graviton

#endif // GRAVITON_CALL_HPP
