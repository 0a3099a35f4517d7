#!/usr/bin/env python3
"""Writes a C program that calls every function of graviton.h with NULL for each of its pointers in turn.

If a description does not allow NULL ("`name` may be NULL"), the call must return invalid-argument; otherwise
it must work. Nothing may crash. The script knows a good value for each parameter by its type and name, and
stops at an unknown parameter.

usage: nulls.py HEADER > nulls.c
"""

import re
import sys

PROLOGUE = r"""
/* Made by nulls.py. */
#include <fcntl.h>
#include <unistd.h>
#include "check.h"

static const char *directory;
static graviton_store *store, *other_store, *out_store;
static graviton_config *config, *out_config;
static graviton_reader *reader, *out_reader;
static graviton_writer *writer, *out_writer;
static graviton_list *list, *out_list;
static graviton_manifest *manifest, *out_manifest;
static graviton_blob_id id, out_id;
static graviton_block_key key;
static graviton_manifest_entry entry;
static unsigned char data[9] = "nullable", room[512];
static char text_room[512], id_text[GRAVITON_BLOB_ID_TEXT_MAX], path_text[4096];
static size_t count;
static int32_t flag;
static uint64_t number;
static int fd, paths;

static int32_t on_read(void *u, uint8_t *b, size_t c, size_t *n) { (void)u; (void)b; (void)c; *n = 0; return 0; }
static int32_t on_cancel(void *u) { (void)u; return 0; }
static int32_t on_gc(void *u, const graviton_gc_report *r, const graviton_blob_id *i) { (void)u; (void)r; (void)i; return 0; }
static int32_t on_copy(void *u, const graviton_copy_report *r, const graviton_blob_id *i) { (void)u; (void)r; (void)i; return 0; }
static int32_t on_repair(void *u, const graviton_repair_report *r, const graviton_block_key *i) { (void)u; (void)r; (void)i; return 0; }
static int32_t on_repack(void *u, const graviton_repack_report *r) { (void)u; (void)r; return 0; }
static int32_t on_verify(void *u, const graviton_verify_event *e) { (void)u; (void)e; return 0; }

static const char *existing(void) { snprintf(path_text, sizeof path_text, "%s/file", directory); return path_text; }
static const char *fresh(void) { snprintf(path_text, sizeof path_text, "%s/new-%d", directory, ++paths); return path_text; }

static void begin(void)
{
    store = open_store(inside(directory, "one"));
    id = put(store, data, sizeof data);
    OK(graviton_blob_id_format(&id, id_text, sizeof id_text, NULL, &error));
    memcpy(&key, &id, sizeof key);
    OK(graviton_config_for_directory(directory, strlen(directory), &config, &error));
    OK(graviton_reader_open(store, &id, &reader, &error));
    OK(graviton_writer_open(store, NULL, &writer, &error));
    OK(graviton_list_open(store, NULL, &list, &error));
    OK(graviton_manifest_open(store, &id, 0, &manifest, &error));
    out_store = NULL; out_config = NULL; out_reader = NULL; out_writer = NULL; out_list = NULL; out_manifest = NULL;
    fd = open(existing(), O_RDWR | O_CREAT, 0600);
    CHECK(fd >= 0);
}

static void end(void)
{
    close(fd);
    graviton_config_free(config); graviton_reader_free(reader); graviton_writer_free(writer);
    graviton_list_free(list); graviton_manifest_free(manifest);
    graviton_config_free(out_config); graviton_reader_free(out_reader); graviton_writer_free(out_writer);
    graviton_list_free(out_list); graviton_manifest_free(out_manifest); graviton_store_free(out_store);
    graviton_store_free(store);
}
"""


class Parameter:
    def __init__(self, text):
        match = re.fullmatch(r"(const )?(?:struct )?(\w+) (\**)(\w+)", text.strip())
        assert match, f"cannot parse the parameter {text!r}"
        self.const, self.type, self.stars, self.name = bool(match[1]), match[2], match[3], match[4]
        self.is_pointer = bool(self.stars) or self.type.endswith("_callback")


def value(function, parameter):
    """A good value, in C."""
    kind, name = parameter.type, parameter.name
    if parameter.stars == "**" and kind == "graviton_error":
        return "&error"
    if parameter.stars == "**":
        return f"&out_{kind.removeprefix('graviton_')}"
    if parameter.stars and kind in {f"graviton_{k}" for k in ("store", "config", "reader", "writer", "list", "manifest")}:
        return "other_store" if name == "other" else kind.removeprefix("graviton_")
    if parameter.stars and kind == "graviton_blob_id":
        return "&id" if parameter.const else "&out_id"
    if parameter.stars and kind in ("graviton_block_key", "graviton_manifest_entry"):
        return "&key" if kind.endswith("key") else "&entry"
    if parameter.stars and kind.startswith("graviton_") and kind != "graviton_error":
        return f"&{kind}_value"
    fresh = function in ("graviton_store_open", "graviton_config_for_directory", "graviton_store_backup")
    by_name = {
        ("void", "userdata"): "&count", ("char", "path"): "fresh()" if fresh else "existing()",
        ("char", "name"): '"GRAVITON_HASH"', ("char", "to"): '"packs"', ("char", "value"): '"sha256"', ("char", "text"): "id_text",
        ("char", "buffer"): "text_room", ("uint8_t", "bytes"): "data" if parameter.const else "room",
        ("uint8_t", "buffer"): "room", ("size_t", "count"): "&count", ("size_t", "length"): "&count",
        ("int32_t", "exists"): "&flag", ("int32_t", "found"): "&flag", ("int32_t", "order"): "&flag",
        ("uint64_t", "size"): "&number", ("uint64_t", "position"): "&number", ("graviton_error", "error"): "&error",
    }
    if parameter.stars:
        return by_name[kind, name]
    if kind.endswith("_callback"):
        return "on_" + kind.removeprefix("graviton_").removesuffix("_callback")
    numbers = {
        "path_length": "strlen(path_text)", "to_length": "5", "name_length": "13", "value_length": "6", "capacity": "sizeof text_room",
        "length": "strlen(id_text)" if function.endswith("_parse") else "sizeof data", "algo": "1", "fd": "fd",
        "adopt": "0", "take_over": "0", "bytes": "1 << 20", "offset": "0", "whence": "0", "from": "0", "index": "0", "status": "0",
    }
    return numbers[name]


def functions(header):
    for match in re.finditer(r"/\*\*(.*?)\*/\n((?:graviton_status|int32_t|size_t|void|const char \*)\s*)(graviton_\w+)\((.*?)\);",
                             header, re.S):
        words = re.sub(r"\s*\n \* ?", " ", match[1].split("/**")[-1])
        parameters = [] if match[4] == "void" else [Parameter(text) for text in match[4].split(",")]
        yield match[3], match[2].strip(), words, parameters


def main():
    header = open(sys.argv[1], encoding="utf-8").read()
    calls, structures, total, checked = [], set(), 0, 0
    for name, result, words, parameters in functions(header):
        total += 1
        for parameter in parameters:
            if parameter.stars == "*" and value(name, parameter).endswith("_value"):
                structures.add(parameter.type)
        for parameter in parameters:
            if not parameter.is_pointer:
                continue
            checked += 1
            given = [("NULL" if other is parameter else value(name, other)) for other in parameters]
            # The compiler may evaluate the length of a path before the path itself.
            before = next((v for v in (value(name, p) for p in parameters) if v.endswith("()")), None)
            given = ["path_text" if v == before else v for v in given]
            call = f"{name}({', '.join(given)})"
            lines = [f"    {before};"] if before else []
            if result != "graviton_status" or parameter.name == "error":
                # The call has no status, or this is the place for the error, which may be NULL.
                if result == "graviton_status" and name != "graviton_error_code":
                    call = f"CHECK({call} == GRAVITON_OK)"
                lines.append(f"    {call};" if "CHECK" in call or result == "void" else f"    (void){call};")
            elif f"`{parameter.name}` may be NULL if" in words:
                lines.append(f"    INVALID({call});")
                lengths = {"capacity": "0", "length": "0"}
                given = [lengths.get(o.name, v) if not o.is_pointer else v for o, v in zip(parameters, given)]
                if name == "graviton_store_get":
                    # There is space only for the empty blob.
                    lines.append(f"    INVALID({name}({', '.join(given)}));")
                else:
                    lines.append(f"    OK({name}({', '.join(given)}));")
            elif f"`{parameter.name}` may be NULL" in words or (name, parameter.name) in IMPLIED:
                lines.append(f"    OK({call});")
            else:
                lines.append(f"    INVALID({call});")
            calls.append("    begin();\n" + "\n".join(lines) + "\n    end();\n")
    assert total == len(set(re.findall(r"\b(graviton_\w+)\(", re.sub(r"/\*.*?\*/", "", header, flags=re.S)))), total
    print(PROLOGUE)
    for structure in sorted(structures):
        print(f"static {structure} {structure}_value;")
    print("int main(int argc, char **argv)\n{\n    CHECK(argc == 2);\n    directory = argv[1];")
    print('    other_store = open_store(inside(directory, "two"));')
    for structure in sorted(structures):
        print(f"    {structure}_value.struct_size = sizeof {structure}_value;")
    print("\n".join(calls))
    print("    graviton_store_free(other_store);\n    return 0;\n}")
    print(f"{checked} pointers of {total} functions", file=sys.stderr)


# "NULL removes it" and "With NULL, the handle has no cancel callback" say the same in other words.
IMPLIED = {("graviton_config_set_cancel", "callback"), ("graviton_store_with_cancel", "callback")}


main()
