// Shared parts of the tests in C++. Each test is a program that gets an empty directory as its argument and
// ends with 0 if all is well. It is built both with and without exceptions: OK takes the result of a call,
// FAILS the error with which it must end.

#ifndef CHECK_HPP
#define CHECK_HPP

#include "graviton.hpp"

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

[[noreturn]] inline void die(const char *file, int line, const char *what, const char *why = "")
{
    std::fprintf(stderr, "%s:%d: %s: %s\n", file, line, what, why);
    std::abort();
}

#define CHECK(...) ((__VA_ARGS__) ? (void)0 : die(__FILE__, __LINE__, #__VA_ARGS__))

#ifdef GRAVITON_NO_EXCEPTIONS

template <class T>
T must(graviton::result<T> result, const char *file, int line, const char *what)
{
    if (!result) {
        die(file, line, what, result.error().what());
    }
    return std::move(result).value();
}

template <class T>
graviton::error must_fail(const graviton::result<T> &result, const char *file, int line, const char *what)
{
    if (result) {
        die(file, line, what, "no error");
    }
    return result.error();
}

#define OK(...) must((__VA_ARGS__), __FILE__, __LINE__, #__VA_ARGS__)
#define ERROR_OF(...) must_fail((__VA_ARGS__), __FILE__, __LINE__, #__VA_ARGS__)

#else

template <class Call>
graviton::error must_fail(Call call, const char *file, int line, const char *what)
{
    try {
        call();
    } catch (const graviton::error &error) {
        return error;
    }
    die(file, line, what, "no error");
}

#define OK(...) (__VA_ARGS__)
#define ERROR_OF(...) must_fail([&] { (void)(__VA_ARGS__); }, __FILE__, __LINE__, #__VA_ARGS__)

#endif

// The call fails with this code, and with a message.
#define FAILS(expected, ...)                                                                                           \
    do {                                                                                                               \
        const graviton::error error_ = ERROR_OF(__VA_ARGS__);                                                          \
        if (error_.code() != graviton::errc::expected || error_.what()[0] == 0) {                                      \
            die(__FILE__, __LINE__, #__VA_ARGS__, error_.what());                                                      \
        }                                                                                                              \
    } while (0)

// Bytes that look random and depend only on the seed: xorshift64*.
inline std::vector<std::uint8_t> noise(std::size_t length, std::uint64_t seed)
{
    std::vector<std::uint8_t> bytes(length);
    std::uint64_t state = seed * 2654435769U + 88172645463325252U;
    for (auto &byte : bytes) {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        byte = static_cast<std::uint8_t>((state * 2685821657736338717U) >> 56);
    }
    return bytes;
}

#endif // CHECK_HPP
