// Part of graviton.hpp: the location and the settings of a store.

#ifndef GRAVITON_CONFIG_HPP
#define GRAVITON_CONFIG_HPP

#include "store.hpp"

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace graviton {
inline namespace GRAVITON_ERROR_STYLE {

/// The location and the settings of a store, and the way to open it:
/// `graviton::config("./data").set("GRAVITON_HASH", "sha256").open()`. Without exceptions, the first failure
/// is kept, and is returned by get and the opening functions. One thread at a time.
class config {
public:
    /// The defaults: a store in `./.graviton`.
    config()
    {
        make([&](auto raw, auto error) { return graviton_config_new(raw, error); });
    }

    /// The defaults, with the store in this directory.
    explicit config(const std::filesystem::path &directory)
    {
        make([&](auto raw, auto error) {
            return graviton_config_for_directory(directory.native().data(), directory.native().size(), raw, error);
        });
    }

    /// Reads the settings from the environment; the others have their defaults.
    static config from_env()
    {
        config made{nothing()};
        made.make([&](auto raw, auto error) { return graviton_config_from_env(raw, error); });
        return made;
    }

    /// Sets a setting, such as "GRAVITON_HASH" to "sha256".
    config &set(std::string_view name, std::string_view value) &
    {
        return keep([&](auto error) {
            return graviton_config_set(raw_.get(), name.data(), name.size(), value.data(), value.size(), error);
        });
    }
    config &&set(std::string_view name, std::string_view value) && { return std::move(set(name, value)); }

    /// Whether opening adopts blocks that are already there without a store-id.
    config &adopt(bool adopt = true) &
    {
        return keep([&](auto error) { return graviton_config_adopt(raw_.get(), detail::flag(adopt), error); });
    }
    config &&adopt(bool adopt = true) && { return std::move(this->adopt(adopt)); }

    /// Whether opening for writing makes a copy of the database the owner of the blocks: a restored backup,
    /// for instance. First end everything that uses the other database. Not for every opening.
    config &take_over(bool take_over = true) &
    {
        return keep([&](auto error) {
            return graviton_config_take_over(raw_.get(), detail::flag(take_over), error);
        });
    }
    config &&take_over(bool take_over = true) && { return std::move(this->take_over(take_over)); }

    /// Sets the cancel callback of opening, and of every call on the store and on its readers, writers and
    /// iterators.
    config &set_cancel(cancel_callback callback) &
    {
        auto cancel = detail::keep(std::move(callback));
        keep([&](auto error) {
            return graviton_config_set_cancel(raw_.get(), detail::cancel_function(cancel), detail::cancel_userdata(cancel),
                                              error);
        });
        raw_.get_deleter().cancel = std::move(cancel);
        return *this;
    }
    config &&set_cancel(cancel_callback callback) && { return std::move(set_cancel(std::move(callback))); }

    /// The value of a setting or its default; a secret reads as an ellipsis.
    outcome<std::string> get(std::string_view name) const
    {
#ifdef GRAVITON_NO_EXCEPTIONS
        if (failed_) {
            return *failed_;
        }
#endif
        std::string value;
        return detail::run<std::string>(
            [&](auto error) {
                std::size_t length = 0;
                auto status = graviton_config_get(raw_.get(), name.data(), name.size(), nullptr, 0, &length, error);
                if (status == GRAVITON_OK) {
                    value.resize(length + 1);
                    status = graviton_config_get(raw_.get(), name.data(), name.size(), value.data(), value.size(), &length, error);
                    value.resize(length);
                }
                return status;
            },
            [&] { return std::move(value); });
    }

    /// Opens the store, and creates it if it does not exist.
    outcome<store> open() const { return opened(graviton_config_open); }
    /// Opens an existing store; errc::not_found if there is none.
    outcome<store> open_existing() const { return opened(graviton_config_open_existing); }
    /// Opens an existing store for reading only.
    outcome<store> open_read_only() const { return opened(graviton_config_open_read_only); }

    /// The handle of graviton.h; this object still owns it.
    graviton_config *c_handle() const noexcept { return raw_.get(); }

private:
    struct nothing {};
    explicit config(nothing) noexcept {}

    template <class Call>
    void make(Call call)
    {
        graviton_config *raw = nullptr;
        keep([&](auto error) { return call(&raw, error); });
        raw_.reset(raw);
    }

    /// Throws the failure, or keeps the first one.
    template <class Call>
    config &keep(Call call)
    {
#ifdef GRAVITON_NO_EXCEPTIONS
        if (!failed_) {
            if (const auto done = detail::run(call); !done) {
                failed_ = done.error();
            }
        }
#else
        detail::run(call);
#endif
        return *this;
    }

    template <class Open>
    outcome<store> opened(Open how) const
    {
#ifdef GRAVITON_NO_EXCEPTIONS
        if (failed_) {
            return *failed_;
        }
#endif
        graviton_store *raw = nullptr;
        return detail::run<store>([&](auto error) { return how(raw_.get(), &raw, error); },
                                  [&] { return store(raw, raw_.get_deleter().cancel); });
    }

    detail::handle<graviton_config, graviton_config_free> raw_;
#ifdef GRAVITON_NO_EXCEPTIONS
    std::optional<error> failed_;
#endif
};

} // inline namespace
} // namespace graviton

#endif // GRAVITON_CONFIG_HPP
