// Part of graviton.hpp: iteration over the blobs of a store, and the blocks of a blob.

#ifndef GRAVITON_WALK_HPP
#define GRAVITON_WALK_HPP

#include "callback.hpp"

#include <cstddef>
#include <iterator>
#include <optional>
#include <utility>

namespace graviton {
inline namespace GRAVITON_ERROR_STYLE {

namespace detail {

/// One step of an iteration. Where an error cannot be thrown, it is an element, and the last one.
template <class Walk>
std::optional<outcome<typename Walk::value_type>> step(Walk &walk)
{
#ifdef GRAVITON_NO_EXCEPTIONS
    auto next = walk.next();
    if (!next) {
        return outcome<typename Walk::value_type>(next.error());
    }
    return *next ? std::optional<outcome<typename Walk::value_type>>(std::move(**next)) : std::nullopt;
#else
    return walk.next();
#endif
}

/// Iterates over a list or manifest once.
template <class Walk>
class walk_iterator {
public:
    using iterator_category = std::input_iterator_tag;
    using value_type = outcome<typename Walk::value_type>;
    using difference_type = std::ptrdiff_t;
    using pointer = const value_type *;
    using reference = const value_type &;

    walk_iterator() = default;
    explicit walk_iterator(Walk &walk) : walk_(&walk) { ++*this; }

    reference operator*() const noexcept { return *current_; }
    pointer operator->() const noexcept { return &*current_; }
    walk_iterator &operator++()
    {
#ifdef GRAVITON_NO_EXCEPTIONS
        const bool over = current_ && !*current_;
#else
        const bool over = false;
#endif
        current_ = over ? std::nullopt : step(*walk_);
        return *this;
    }
    void operator++(int) { ++*this; }
    friend bool operator==(const walk_iterator &left, const walk_iterator &right) noexcept
    {
        return !left.current_ && !right.current_;
    }
    friend bool operator!=(const walk_iterator &left, const walk_iterator &right) noexcept { return !(left == right); }

private:
    Walk *walk_ = nullptr;
    std::optional<value_type> current_;
};

} // namespace detail

/// A single-pass iterator over the blobs of a store: with next, or `for (const auto &blob : list)`, whose
/// elements are outcome<blob_stat>. One thread at a time.
class list {
public:
    using value_type = blob_stat;
    using iterator = detail::walk_iterator<list>;

    /// Takes over a handle of graviton.h.
    explicit list(graviton_list *raw, detail::cancel_keeper cancel = nullptr) noexcept : raw_(raw, {std::move(cancel)}) {}

    /// The next blob, or std::nullopt at the end. After an error it can be called again.
    outcome<std::optional<blob_stat>> next()
    {
        graviton_blob_stat stat = GRAVITON_BLOB_STAT_INIT;
        std::int32_t found = 0;
        return detail::run<std::optional<blob_stat>>(
            [&](auto error) { return graviton_list_next(raw_.get(), &stat, &found, error); },
            [&] { return found != 0 ? std::optional(blob_stat(stat)) : std::nullopt; });
    }

    /// Takes the next blob.
    iterator begin() { return iterator(*this); }
    iterator end() noexcept { return iterator(); }

    /// The handle of graviton.h; this object still owns it.
    graviton_list *c_handle() const noexcept { return raw_.get(); }

private:
    detail::handle<graviton_list, graviton_list_free> raw_;
};

/// A single-pass iterator over the blocks of a blob, like list. One thread at a time.
class manifest {
public:
    using value_type = manifest_entry;
    using iterator = detail::walk_iterator<manifest>;

    /// Takes over a handle of graviton.h.
    explicit manifest(graviton_manifest *raw, detail::cancel_keeper cancel = nullptr) noexcept : raw_(raw, {std::move(cancel)}) {}

    /// The next block, or std::nullopt at the end. After an error it can be called again.
    outcome<std::optional<manifest_entry>> next()
    {
        graviton_manifest_entry entry{};
        std::int32_t found = 0;
        return detail::run<std::optional<manifest_entry>>(
            [&](auto error) { return graviton_manifest_next(raw_.get(), &entry, &found, error); },
            [&] { return found != 0 ? std::optional(manifest_entry(entry)) : std::nullopt; });
    }

    /// Takes the next block.
    iterator begin() { return iterator(*this); }
    iterator end() noexcept { return iterator(); }

    /// The handle of graviton.h; this object still owns it.
    graviton_manifest *c_handle() const noexcept { return raw_.get(); }

private:
    detail::handle<graviton_manifest, graviton_manifest_free> raw_;
};

} // inline namespace
} // namespace graviton

#endif // GRAVITON_WALK_HPP
