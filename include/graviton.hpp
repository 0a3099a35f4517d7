/*
 * graviton.hpp: Graviton for C++17 and later, only a thin layer over graviton.h, without a library of its
 * own.
 *
 *     graviton::store store = graviton::store::open("./data");
 *     graviton::blob_id id = store.put("some bytes").id;
 *     std::string back = store.get<std::string>(id);
 *
 * graviton.h documents each function, whether it blocks, and which threads may call it. The files in the
 * directory beside this one document only what C++ adds.
 *
 * ERRORS
 *   A function that can fail returns outcome<T>. With exceptions that is T, and failures are thrown as
 *   graviton::error. With GRAVITON_NO_EXCEPTIONS defined before the #include, or without exceptions in the
 *   compiler, it is result<T>, which holds either one, like std::expected. Files of both kinds may be linked
 *   into one program.
 *
 * HANDLES
 *   config, store, reader, writer, list and manifest own a handle of graviton.h, can be moved and not copied,
 *   and free it when they are destroyed, in any order. A moved-from handle may only be assigned to or
 *   destroyed; any other call on it is errc::invalid_argument. c_handle() lends the handle to calls of
 *   graviton.h.
 *
 * CALLBACKS
 *   are any callable with the given signature, and return a flow. An exception in a callback ends the call
 *   cleanly, and is then rethrown to the caller of the function.
 */

#ifndef GRAVITON_HPP
#define GRAVITON_HPP

#include "graviton/config.hpp"
#include "graviton/store.hpp"
#include "graviton/stream.hpp"

#endif // GRAVITON_HPP
