// Part of graviton.hpp: the names of blobs and blocks.

#ifndef GRAVITON_BLOB_ID_HPP
#define GRAVITON_BLOB_ID_HPP

#include "bytes.hpp"
#include "call.hpp"

#include <cstring>
#include <functional>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

namespace graviton {
inline namespace GRAVITON_ERROR_STYLE {

/// The hash algorithm.
enum class algorithm : std::int32_t { blake3 = GRAVITON_ALGO_BLAKE3, sha256 = GRAVITON_ALGO_SHA256 };

namespace detail {

/// The common part of blob ids and block keys: an algorithm, a digest and a length. They are ordered by
/// these, as listings are.
template <class Raw, graviton_status (*Format)(const Raw *, char *, std::size_t, std::size_t *, graviton_error **)>
class name_of_content {
public:
    /// An empty name. Calls refuse it with errc::invalid_argument.
    name_of_content() noexcept = default;
    /// From the struct of graviton.h.
    name_of_content(const Raw &raw) noexcept : raw_(raw) {}

    /// The struct of graviton.h.
    const Raw &raw() const noexcept { return raw_; }
    /// The length in bytes.
    std::uint64_t size() const noexcept { return raw_.size; }
    /// The algorithm of the digest.
    graviton::algorithm algorithm() const noexcept { return static_cast<graviton::algorithm>(raw_.algo); }
    /// The digest, GRAVITON_DIGEST_SIZE bytes. Valid as long as this object.
    bytes_view digest() const noexcept { return {raw_.digest, sizeof(raw_.digest)}; }

    /// `<algorithm>:<hex>:<size>`; empty for an empty name.
    std::string to_string() const
    {
        char text[GRAVITON_BLOB_ID_TEXT_MAX];
        std::size_t length = 0;
        return Format(&raw_, text, sizeof(text), &length, nullptr) == GRAVITON_OK ? std::string(text, length) : std::string();
    }

    friend bool operator==(const name_of_content &left, const name_of_content &right) noexcept
    {
        return left.compare(right) == 0;
    }
    friend bool operator!=(const name_of_content &left, const name_of_content &right) noexcept
    {
        return left.compare(right) != 0;
    }
    friend bool operator<(const name_of_content &left, const name_of_content &right) noexcept
    {
        return left.compare(right) < 0;
    }
    friend bool operator>(const name_of_content &left, const name_of_content &right) noexcept
    {
        return left.compare(right) > 0;
    }
    friend bool operator<=(const name_of_content &left, const name_of_content &right) noexcept
    {
        return left.compare(right) <= 0;
    }
    friend bool operator>=(const name_of_content &left, const name_of_content &right) noexcept
    {
        return left.compare(right) >= 0;
    }
    friend std::ostream &operator<<(std::ostream &stream, const name_of_content &name) { return stream << name.to_string(); }

    /// For std::hash: a digest is distributed as evenly as possible.
    std::size_t hash() const noexcept
    {
        std::size_t value = 0;
        std::memcpy(&value, raw_.digest, sizeof(value));
        return value;
    }

protected:
    Raw raw_{};

private:
    int compare(const name_of_content &other) const noexcept
    {
        if (raw_.algo != other.raw_.algo) {
            return raw_.algo < other.raw_.algo ? -1 : 1;
        }
        if (const int order = std::memcmp(raw_.digest, other.raw_.digest, sizeof(raw_.digest)); order != 0) {
            return order;
        }
        return raw_.size == other.raw_.size ? 0 : raw_.size < other.raw_.size ? -1 : 1;
    }
};

} // namespace detail

/// The name of a block: its digest and length. A value.
class block_key : public detail::name_of_content<graviton_block_key, graviton_block_key_format> {
public:
    using name_of_content::name_of_content;

    /// Parses the form of to_string, strictly; errc::invalid_id for anything else.
    static outcome<block_key> parse(std::string_view text)
    {
        graviton_block_key raw{};
        return detail::run<block_key>(
            [&](auto error) { return graviton_block_key_parse(text.data(), text.size(), &raw, error); },
            [&] { return block_key(raw); });
    }
};

/// The name of a blob: the digest and length of its whole content. A value.
class blob_id : public detail::name_of_content<graviton_blob_id, graviton_blob_id_format> {
public:
    using name_of_content::name_of_content;

    /// Parses the form of to_string, strictly; errc::invalid_id for anything else.
    static outcome<blob_id> parse(std::string_view text)
    {
        graviton_blob_id raw{};
        return detail::run<blob_id>(
            [&](auto error) { return graviton_blob_id_parse(text.data(), text.size(), &raw, error); },
            [&] { return blob_id(raw); });
    }

    /// Computes the id of these bytes. Stores nothing.
    static outcome<blob_id> of(bytes_view bytes, graviton::algorithm algorithm = graviton::algorithm::blake3)
    {
        graviton_blob_id raw{};
        return detail::run<blob_id>(
            [&](auto error) {
                return graviton_blob_id_of(static_cast<std::int32_t>(algorithm), bytes.data(), bytes.size(), &raw, error);
            },
            [&] { return blob_id(raw); });
    }
};

namespace detail {

/// A pointer, or NULL for no id, as graviton.h expects it.
inline const graviton_blob_id *or_null(const std::optional<blob_id> &id) noexcept { return id ? &id->raw() : nullptr; }

/// Several ids, as graviton.h expects them: a pointer and their number.
class raw_ids {
public:
    explicit raw_ids(const std::vector<blob_id> &ids) : count_(ids.size())
    {
        // One more than needed: without ids the pointer would be null, which means all blobs.
        raw_.reserve(ids.size() + 1);
        for (const blob_id &id : ids) {
            raw_.push_back(id.raw());
        }
        raw_.emplace_back();
    }

    const graviton_blob_id *data() const noexcept { return raw_.data(); }
    std::size_t size() const noexcept { return count_; }

private:
    std::vector<graviton_blob_id> raw_;
    std::size_t count_;
};

template <class Name, class Raw>
std::vector<Name> copied(const Raw *first, std::size_t count)
{
    return count == 0 ? std::vector<Name>() : std::vector<Name>(first, first + count);
}

} // namespace detail

} // inline namespace
} // namespace graviton

/// Makes ids usable as keys of std::unordered_map.
template <>
struct std::hash<graviton::blob_id> {
    std::size_t operator()(const graviton::blob_id &id) const noexcept { return id.hash(); }
};

/// Makes keys usable as keys of std::unordered_map.
template <>
struct std::hash<graviton::block_key> {
    std::size_t operator()(const graviton::block_key &key) const noexcept { return key.hash(); }
};

#endif // GRAVITON_BLOB_ID_HPP
