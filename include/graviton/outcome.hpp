// Part of graviton.hpp: the result of a function that can fail.

#ifndef GRAVITON_OUTCOME_HPP
#define GRAVITON_OUTCOME_HPP

#include "error.hpp"

#include <cstdlib>
#include <optional>
#include <utility>
#include <variant>

namespace graviton {
inline namespace GRAVITON_ERROR_STYLE {

#ifdef GRAVITON_NO_EXCEPTIONS

/// A value or an error. Accessing the one that it does not hold ends the program.
template <class T>
class [[nodiscard]] result {
public:
    using value_type = T;

    result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
    result(graviton::error error) : state_(std::in_place_index<1>, std::move(error)) {}

    bool has_value() const noexcept { return state_.index() == 0; }
    explicit operator bool() const noexcept { return has_value(); }
    T &value() & noexcept { return *checked(std::get_if<0>(&state_)); }
    const T &value() const & noexcept { return *checked(std::get_if<0>(&state_)); }
    T &&value() && noexcept { return std::move(value()); }
    T &operator*() & noexcept { return value(); }
    const T &operator*() const & noexcept { return value(); }
    T &&operator*() && noexcept { return std::move(value()); }
    T *operator->() noexcept { return &value(); }
    const T *operator->() const noexcept { return &value(); }
    T value_or(T other) && { return has_value() ? std::move(value()) : std::move(other); }
    const graviton::error &error() const noexcept { return *checked(std::get_if<1>(&state_)); }

private:
    template <class U>
    static U *checked(U *held) noexcept
    {
        if (held == nullptr) {
            std::abort();
        }
        return held;
    }

    std::variant<T, graviton::error> state_;
};

/// Success or an error.
template <>
class [[nodiscard]] result<void> {
public:
    using value_type = void;

    result() = default;
    result(graviton::error error) : error_(std::move(error)) {}

    bool has_value() const noexcept { return !error_.has_value(); }
    explicit operator bool() const noexcept { return has_value(); }
    void value() const noexcept
    {
        if (error_) {
            std::abort();
        }
    }
    const graviton::error &error() const noexcept
    {
        if (!error_) {
            std::abort();
        }
        return *error_;
    }

private:
    std::optional<graviton::error> error_;
};

/// The result of a function that can fail.
template <class T>
using outcome = result<T>;

#else

/// The result of a function that can fail; a failure is thrown as graviton::error.
template <class T>
using outcome = T;

#endif

} // inline namespace
} // namespace graviton

#endif // GRAVITON_OUTCOME_HPP
