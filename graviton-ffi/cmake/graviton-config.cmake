# find_package(graviton) gives
#   graviton::graviton    the shared library, or the static one if BUILD_SHARED_LIBS is set and false, or if the variable
#                         graviton_USE_STATIC is true
#   graviton::static      the static library, always
#   graviton::shared      the shared library, always
# Finds everything from its own place, so the prefix can be moved.

get_filename_component(_graviton_lib "${CMAKE_CURRENT_LIST_DIR}/../.." ABSOLUTE)
get_filename_component(_graviton_prefix "${_graviton_lib}/.." ABSOLUTE)

include("${CMAKE_CURRENT_LIST_DIR}/graviton-static-libs.cmake")

if(NOT TARGET graviton::shared)
    add_library(graviton::shared SHARED IMPORTED)
    set_target_properties(graviton::shared PROPERTIES
        IMPORTED_LOCATION "${_graviton_lib}/libgraviton.so"
        IMPORTED_SONAME "libgraviton.so.0"
        INTERFACE_INCLUDE_DIRECTORIES "${_graviton_prefix}/include")
endif()

if(NOT TARGET graviton::static)
    add_library(graviton::static STATIC IMPORTED)
    set_target_properties(graviton::static PROPERTIES
        IMPORTED_LOCATION "${_graviton_lib}/libgraviton.a"
        INTERFACE_LINK_LIBRARIES "${_graviton_static_libs}"
        INTERFACE_INCLUDE_DIRECTORIES "${_graviton_prefix}/include")
endif()

if(NOT TARGET graviton::graviton)
    add_library(graviton::graviton INTERFACE IMPORTED)
    if(graviton_USE_STATIC OR (DEFINED BUILD_SHARED_LIBS AND NOT BUILD_SHARED_LIBS))
        set_property(TARGET graviton::graviton PROPERTY INTERFACE_LINK_LIBRARIES graviton::static)
    else()
        set_property(TARGET graviton::graviton PROPERTY INTERFACE_LINK_LIBRARIES graviton::shared)
    endif()
endif()

unset(_graviton_lib)
unset(_graviton_prefix)
unset(_graviton_static_libs)
