// Part of graviton.hpp, and not of its interface: how calls into C are made, and callbacks from it. No exception passes through C.

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
    /// Go on.
    go_on = 0,
    /// For gc, verify and the like: stop early, with a report that says so. Elsewhere the same
    /// as cancel.
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

/// What a callback threw during the call that this thread makes: it must not pass through C, and a callback runs on the thread
/// that makes the call.
inline std::exception_ptr &thrown() noexcept
{
    static thread_local std::exception_ptr slot;
    return slot;
}

/// Runs a callback. Once one has thrown, no other is run until the call is over.
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

/// After each call: throws on what a callback threw.
inline void rethrow()
{
    if (thrown()) {
        std::rethrow_exception(std::exchange(thrown(), nullptr));
    }
}

/// After a call that may not throw.
inline void forget() noexcept
{
    thrown() = nullptr;
}

#endif

/// Makes a call, and then gives what `value` makes of it.
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

/// Makes a call that gives nothing.
template <class Call>
outcome<void> run(Call call)
{
    return run<void>(call, [] { return outcome<void>(); });
}

/// What graviton.h takes as flags.
inline std::int32_t flag(bool value) noexcept { return value ? 1 : 0; }

} // namespace detail

} // inline namespace
} // namespace graviton

#endif // GRAVITON_CALL_HPP
