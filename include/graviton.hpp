/*
 * graviton.hpp: Graviton for C++17 and later, a thin layer over graviton.h and nothing else: no library of its own.
 *
 *     graviton::store store = graviton::store::open("./data");
 *     graviton::blob_id id = store.put("some bytes").id;
 *     std::string back = store.get<std::string>(id);
 *
 * What a function does, whether it blocks and from which threads it may be called is as graviton.h says of the function of
 * the same name; here is what C++ adds, file by file in the directory beside this one.
 *
 * ERRORS
 *   A function that can fail returns outcome<T>. That is T, and failures are thrown as graviton::error. With
 *   GRAVITON_NO_EXCEPTIONS defined before the #include, or without exceptions in the compiler, it is result<T> instead,
 *   which holds either, as std::expected does. Files of both kinds may be linked into one program.
 *
 * HANDLES
 *   config, store, reader, writer, list and manifest own a handle of graviton.h, can be moved and not copied, and free it
 *   when they go, in any order. What was moved from may only be assigned to or destroyed; any other call on it is
 *   errc::invalid_argument. c_handle() lends the handle to calls of graviton.h.
 *
 * CALLBACKS
 *   are any callable with the signature given, and return a flow. What one throws ends the call in an orderly way, and is then
 *   thrown on to the caller of the function that it was given to.
 */

#ifndef GRAVITON_HPP
#define GRAVITON_HPP

#include "graviton/config.hpp"
#include "graviton/store.hpp"
#include "graviton/stream.hpp"

#endif // GRAVITON_HPP
