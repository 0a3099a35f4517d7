// Part of graviton.hpp: views of bytes that the caller owns.

#ifndef GRAVITON_BYTES_HPP
#define GRAVITON_BYTES_HPP

#include "error.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <string>
#include <type_traits>

namespace graviton {
inline namespace GRAVITON_ERROR_STYLE {

namespace detail {

template <class T>
inline constexpr bool is_byte = std::is_same_v<T, char> || std::is_same_v<T, signed char>
    || std::is_same_v<T, unsigned char> || std::is_same_v<T, std::byte>
#ifdef __cpp_char8_t
    || std::is_same_v<T, char8_t>
#endif
    ;

/// Whether a T is, or becomes, a pointer to text. (A null pointer constant does not count.)
template <class T, class Char>
inline constexpr bool is_text_of =
    std::is_convertible_v<const T &, const Char *> && !std::is_array_v<T> && !std::is_null_pointer_v<T>;

/// Whether a T is an array that may contain text.
template <class T>
inline constexpr bool is_text_array = std::is_array_v<T>
    && (std::is_same_v<std::remove_cv_t<std::remove_extent_t<T>>, char>
#ifdef __cpp_char8_t
        || std::is_same_v<std::remove_cv_t<std::remove_extent_t<T>>, char8_t>
#endif
    );

/// The length of text in an array: up to its NUL, or to the end of the array.
template <class Char>
std::size_t text_length(const Char *text, std::size_t most) noexcept
{
    const Char *end = std::char_traits<Char>::find(text, most, Char());
    return end == nullptr ? most : static_cast<std::size_t>(end - text);
}

/// The element type that std::data of a T points to; void if it has none.
template <class T, class = void>
struct element {
    using type = void;
};

template <class T>
struct element<T, std::void_t<decltype(std::data(std::declval<T &>())), decltype(std::size(std::declval<T &>()))>> {
    using type = std::remove_pointer_t<decltype(std::data(std::declval<T &>()))>;
};

template <class T>
using element_t = typename element<T>::type;

} // namespace detail

/// A view of bytes to read: a pointer and a length, which own nothing. Made from strings, and from everything
/// contiguous of char, unsigned char or std::byte: std::vector, std::array, std::span, arrays.
///
/// Text is read up to its NUL: `const char *`, and literals, that is, const arrays of char; no byte behind
/// the array is touched. A mutable array of char may be text or a buffer, so nothing is made from it: choose
/// with `std::string_view(array)` or `bytes_view(array, length)`.
class bytes_view {
public:
    constexpr bytes_view() noexcept = default;
    /// `size` bytes at `data`, which may be null if there are none.
    bytes_view(const void *data, std::size_t size) noexcept : data_(static_cast<const std::uint8_t *>(data)), size_(size) {}
    /// Text up to its NUL, which must be there.
    template <class Text, std::enable_if_t<detail::is_text_of<Text, char>, int> = 0>
    bytes_view(const Text &text) noexcept : bytes_view(text, std::strlen(text))
    {
    }
    /// A literal: text up to its NUL, or all of the array if there is none.
    template <std::size_t Size>
    bytes_view(const char (&text)[Size]) noexcept : bytes_view(text, detail::text_length(text, Size))
    {
    }
    /// A mutable array may be text or a buffer: choose explicitly.
    template <std::size_t Size>
    bytes_view(char (&)[Size]) = delete;
#ifdef __cpp_char8_t
    /// Text up to its NUL, which must be there.
    template <class Text, std::enable_if_t<detail::is_text_of<Text, char8_t>, int> = 0>
    bytes_view(const Text &text) noexcept : bytes_view(text, std::char_traits<char8_t>::length(text))
    {
    }
    /// A literal: text up to its NUL, or all of the array if there is none.
    template <std::size_t Size>
    bytes_view(const char8_t (&text)[Size]) noexcept : bytes_view(text, detail::text_length(text, Size))
    {
    }
    /// A mutable array may be text or a buffer: choose explicitly.
    template <std::size_t Size>
    bytes_view(char8_t (&)[Size]) = delete;
#endif
    /// The bytes of a container.
    template <class Bytes, class Byte = std::remove_const_t<detail::element_t<const Bytes>>,
              class = std::enable_if_t<detail::is_byte<Byte> && !detail::is_text_array<Bytes>>>
    bytes_view(const Bytes &bytes) noexcept : bytes_view(std::data(bytes), std::size(bytes))
    {
    }

    constexpr const std::uint8_t *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }
    constexpr bool empty() const noexcept { return size_ == 0; }
    constexpr const std::uint8_t *begin() const noexcept { return data_; }
    constexpr const std::uint8_t *end() const noexcept { return data_ + size_; }

private:
    const std::uint8_t *data_ = nullptr;
    std::size_t size_ = 0;
};

/// A view of bytes to write: a pointer and a length, which own nothing. Made from everything contiguous of
/// mutable char, unsigned char or std::byte; from an array, all of it.
class bytes_span {
public:
    constexpr bytes_span() noexcept = default;
    /// `size` bytes at `data`, which may be null if there are none.
    bytes_span(void *data, std::size_t size) noexcept : data_(static_cast<std::uint8_t *>(data)), size_(size) {}
    /// The bytes of a container.
    template <class Bytes, class = std::enable_if_t<detail::is_byte<detail::element_t<std::remove_reference_t<Bytes>>>>>
    bytes_span(Bytes &&bytes) noexcept : bytes_span(std::data(bytes), std::size(bytes))
    {
    }

    constexpr std::uint8_t *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }
    constexpr bool empty() const noexcept { return size_ == 0; }
    constexpr std::uint8_t *begin() const noexcept { return data_; }
    constexpr std::uint8_t *end() const noexcept { return data_ + size_; }

private:
    std::uint8_t *data_ = nullptr;
    std::size_t size_ = 0;
};

} // inline namespace
} // namespace graviton

#endif // GRAVITON_BYTES_HPP
