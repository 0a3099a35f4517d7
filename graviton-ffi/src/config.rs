//! Configuration: names and values as in the environment, and the ways to open a store.

use std::ffi::{CString, c_char, c_void};
use std::path::Path;
use std::sync::{LazyLock, Mutex};

use graviton_core::{Config, Result, SETTINGS, Store};

use crate::callback::{Cancel, graviton_cancel_callback};
use crate::error::graviton_error;
use crate::guard::guard;
use crate::panic::Outcome;
use crate::pointer::{borrow, exclusive, free, give_text, out, path, text, truth};
use crate::session::Session;
use crate::status::graviton_status;
use crate::store::graviton_store;

/// The location and the settings of a store: names and values as in the environment (graviton_setting_name
/// lists them). Owned; free it with graviton_config_free. Stores that were opened with it do not need it. One
/// thread at a time.
pub struct graviton_config {
    inner: Mutex<Inner>,
}

struct Inner {
    config: Config,
    cancel: Option<Cancel>,
}

impl graviton_config {
    fn new(config: Config) -> graviton_config {
        graviton_config { inner: Mutex::new(Inner { config, cancel: None }) }
    }

    fn with<T>(&self, call: impl FnOnce(&mut Inner) -> Outcome<T>) -> Outcome<T> {
        call(&mut *exclusive(&self.inner, "configuration")?)
    }

    fn change(&self, change: impl FnOnce(Config) -> Result<Config>) -> Outcome<()> {
        self.with(|inner| {
            inner.config = change(inner.config.clone())?;
            Ok(())
        })
    }

    fn open(&self, open: impl FnOnce(&Config) -> Result<Store>) -> Outcome<graviton_store> {
        // Copied, so that a callback may use the configuration.
        let (config, cancel) = self.with(|inner| Ok((inner.config.clone(), inner.cancel)))?;
        let store = Cancel::watch(cancel, |_| open(&config))?;
        Ok(graviton_store::new(Session::new(store, cancel)))
    }
}

/// The defaults: a store in `./.graviton`. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_config_new(
    config: *mut *mut graviton_config,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            out(config, "config")?.give(graviton_config::new(Config::new()));
            Ok(())
        })
    }
}

/// The defaults, with the store in this directory: `path` of `path_length` bytes, in any encoding. Never
/// blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_config_for_directory(
    path: *const c_char,
    path_length: usize,
    config: *mut *mut graviton_config,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let out = out(config, "config")?;
            let path: &Path = self::path(path, path_length, "path")?;
            out.give(graviton_config::new(Config::for_directory(path)));
            Ok(())
        })
    }
}

/// Reads the settings from the environment; the others have their defaults. An invalid variable is
/// GRAVITON_ERROR_CONFIG. Nothing else in this library reads the environment, except for the standard AWS_*
/// variables when blocks are in AWS. No other thread may change the environment meanwhile. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_config_from_env(
    config: *mut *mut graviton_config,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let out = out(config, "config")?;
            out.give(graviton_config::new(Config::from_env()?));
            Ok(())
        })
    }
}

/// Sets one setting, such as "GRAVITON_HASH" to "sha256": both UTF-8, of these lengths in bytes. An unknown
/// name or an invalid value is GRAVITON_ERROR_CONFIG and leaves the configuration unchanged. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_config_set(
    config: *mut graviton_config,
    name: *const c_char,
    name_length: usize,
    value: *const c_char,
    value_length: usize,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let config = borrow(config, "config")?;
            let name = text(name, name_length, "name")?;
            let value = text(value, value_length, "value")?;
            config.change(|config| config.set(name, value))
        })
    }
}

/// Writes the value of a setting, or its default, and a NUL into `buffer` of `capacity` bytes, and its length
/// without the NUL into `*length`. A secret reads as an ellipsis. `buffer` may be NULL if `capacity` is 0, to
/// get only the length. `length` may be NULL. A buffer that is too small is GRAVITON_ERROR_INVALID_ARGUMENT,
/// an unknown name GRAVITON_ERROR_CONFIG. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_config_get(
    config: *const graviton_config,
    name: *const c_char,
    name_length: usize,
    buffer: *mut c_char,
    capacity: usize,
    length: *mut usize,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let name = text(name, name_length, "name")?;
            let value = borrow(config, "config")?.with(|inner| Ok(inner.config.get(name)?))?;
            Ok(give_text(&value, buffer, capacity, length)?)
        })
    }
}

/// Limits the memory of one put, in bytes, for blobs of any size. The default is 64 MiB; a program with many
/// puts at once may set less. The minimum is about three of the largest blocks plus 3 MiB. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_config_set_put_window(
    config: *mut graviton_config,
    bytes: usize,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe { guard(error, || borrow(config, "config")?.change(|config| Ok(config.put_window(bytes)))) }
}

/// With 1, opening for writing makes a copy of the database the owner of the blocks: a restored backup, a
/// copy in another place, a standby that was promoted. First end everything that uses the other database:
/// from then on, the other one is refused. Not for every opening. The default is 0. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_config_take_over(
    config: *mut graviton_config,
    take_over: i32,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let take_over = truth(take_over, "take_over")?;
            borrow(config, "config")?.change(|config| Ok(config.take_over(take_over)))
        })
    }
}

/// With 1, opening adopts blocks that are already there without a store-id, as the first Graviton server left
/// them. Only for blocks that belong to this database. The default is 0. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_config_adopt(
    config: *mut graviton_config,
    adopt: i32,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            let adopt = truth(adopt, "adopt")?;
            borrow(config, "config")?.change(|config| Ok(config.adopt(adopt)))
        })
    }
}

/// Sets the cancel callback of opening with this configuration, and of every call on the store and on its
/// readers, writers and iterators. NULL removes it for stores that are opened later. `userdata` may be NULL;
/// it must stay valid as long as any of those handles is used. Never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_config_set_cancel(
    config: *mut graviton_config,
    callback: graviton_cancel_callback,
    userdata: *mut c_void,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe {
        guard(error, || {
            borrow(config, "config")?.with(|inner| {
                inner.cancel = Cancel::new(callback, userdata);
                Ok(())
            })
        })
    }
}

/// # Safety
/// As [`borrow`] for the configuration, and [`out`] for the store and [`guard`] for the error.
unsafe fn open_with(
    config: *const graviton_config,
    store: *mut *mut graviton_store,
    error: *mut *mut graviton_error,
    open: impl FnOnce(&Config) -> Result<Store>,
) -> graviton_status {
    // SAFETY: the same contracts.
    unsafe {
        guard(error, || {
            let out = out(store, "store")?;
            out.give(borrow(config, "config")?.open(open)?);
            Ok(())
        })
    }
}

/// Opens the store, and creates it if it does not exist. Free it with graviton_store_free. Blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_config_open(
    config: *const graviton_config,
    store: *mut *mut graviton_store,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe { open_with(config, store, error, Config::open) }
}

/// Opens an existing store. If there is none, returns GRAVITON_ERROR_NOT_FOUND and creates nothing. Free it
/// with graviton_store_free. Blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_config_open_existing(
    config: *const graviton_config,
    store: *mut *mut graviton_store,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe { open_with(config, store, error, Config::open_existing) }
}

/// Opens an existing store for reading only: nothing is written, and its directory may be read-only. If there
/// is none, returns GRAVITON_ERROR_NOT_FOUND. Free it with graviton_store_free. Blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_config_open_read_only(
    config: *const graviton_config,
    store: *mut *mut graviton_store,
    error: *mut *mut graviton_error,
) -> graviton_status {
    // SAFETY: the caller keeps to the header.
    unsafe { open_with(config, store, error, Config::open_read_only) }
}

/// Frees a configuration. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn graviton_config_free(config: *mut graviton_config) {
    // SAFETY: the caller keeps to the header.
    unsafe { free(config) }
}

/// Name, default and meaning of each setting, NUL-terminated.
static TEXTS: LazyLock<Vec<[CString; 3]>> = LazyLock::new(|| {
    let text = |text: &str| CString::new(text).unwrap_or_default();
    SETTINGS
        .iter()
        .map(|setting| [text(setting.name), text(setting.default), text(setting.meaning)])
        .collect()
});

fn setting(index: usize, part: usize) -> *const c_char {
    TEXTS.get(index).map_or(std::ptr::null(), |texts| texts[part].as_ptr())
}

/// The number of settings. Never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn graviton_setting_count() -> usize {
    TEXTS.len()
}

/// The name of a setting, by its index from 0 to graviton_setting_count() - 1; NULL for any other. It is
/// valid for ever. Never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn graviton_setting_name(index: usize) -> *const c_char {
    setting(index, 0)
}

/// The default of a setting, empty if it has none; NULL for an invalid index. It is valid for ever. Never
/// blocks.
#[unsafe(no_mangle)]
pub extern "C" fn graviton_setting_default(index: usize) -> *const c_char {
    setting(index, 1)
}

/// The meaning of a setting, in English; NULL for an invalid index. It is valid for ever. Never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn graviton_setting_meaning(index: usize) -> *const c_char {
    setting(index, 2)
}
