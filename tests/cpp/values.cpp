// Values without a store: views of bytes, ids, errors, settings, and moved handles.

#include "check.hpp"

#include <array>
#include <cstring>
#include <map>
#include <set>
#include <sstream>
#include <unordered_map>
#if __cplusplus > 201703L
#include <span>
#endif

namespace {

bool is_hello(graviton::bytes_view bytes)
{
    return bytes.size() == 5 && !bytes.empty() && std::memcmp(bytes.data(), "hello", 5) == 0 && bytes.end() - bytes.begin() == 5;
}

void views()
{
    const std::string text = "hello";
    const std::array<std::byte, 5> array = {std::byte{'h'}, std::byte{'e'}, std::byte{'l'}, std::byte{'l'}, std::byte{'o'}};
    const unsigned char plain[5] = {'h', 'e', 'l', 'l', 'o'};
    CHECK(is_hello("hello"));
    CHECK(is_hello(text.c_str()));
    CHECK(is_hello(text));
    CHECK(is_hello(std::string_view(text)));
    CHECK(is_hello(std::vector<char>(text.begin(), text.end())));
    CHECK(is_hello(std::vector<std::uint8_t>(text.begin(), text.end())));
    CHECK(is_hello(array));
    CHECK(is_hello(plain));
    CHECK(is_hello({text.data(), 5}));
    // Text in an array ends with its NUL or with the array; the class does not guess whether an array is a
    // buffer.
    static const char unended[5] = {'h', 'e', 'l', 'l', 'o'};
    static const char ended[9] = "hello";
    CHECK(is_hello(unended) && is_hello(ended) && is_hello("hello\0more"));
    static_assert(!std::is_constructible_v<graviton::bytes_view, char (&)[5]>, "a text, or a buffer?");
    static_assert(!std::is_constructible_v<graviton::bytes_view, std::nullptr_t>);
    char text_or_buffer[9] = "hello";
    CHECK(graviton::bytes_span(text_or_buffer).size() == 9 && is_hello(std::string_view(text_or_buffer)));
    CHECK(graviton::bytes_view(text_or_buffer, 9).size() == 9);
    struct named {
        operator const char *() const { return "hello"; }
    };
    CHECK(is_hello(named()));
    CHECK(graviton::bytes_view().empty() && graviton::bytes_view("").empty() && graviton::bytes_view(nullptr, 0).empty());

    std::vector<char> chars(7);
    std::array<std::byte, 8> bytes{};
    unsigned char room[9] = {};
    std::string string(10, ' ');
    CHECK(graviton::bytes_span(chars).size() == 7);
    CHECK(graviton::bytes_span(bytes).size() == 8);
    CHECK(graviton::bytes_span(room).size() == 9 && graviton::bytes_span(room).data() == room);
    CHECK(graviton::bytes_span(string).size() == 10 && graviton::bytes_span().empty());
    *graviton::bytes_span(string).begin() = 'x';
    CHECK(string[0] == 'x' && graviton::bytes_span(string).end() - graviton::bytes_span(string).begin() == 10);
#if __cplusplus > 201703L
    CHECK(is_hello(std::span<const unsigned char>(plain)));
    CHECK(is_hello(std::as_bytes(std::span(text.data(), text.size()))));
    CHECK(is_hello(u8"hello") && is_hello(std::u8string_view(u8"hello")));
    CHECK(graviton::bytes_span(std::span(room).subspan(4)).size() == 5);
#endif
    static_assert(!std::is_convertible_v<std::vector<int>, graviton::bytes_view>, "only bytes are bytes");
    static_assert(!std::is_convertible_v<const std::string &, graviton::bytes_span>, "what is const stays as it is");
    static_assert(!std::is_convertible_v<int, graviton::bytes_view>);
}

void ids()
{
    using graviton::blob_id;
    const blob_id id = OK(blob_id::of("hello"));
    CHECK(id.to_string() == "blake3:ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f:5");
    CHECK(id.size() == 5 && id.algorithm() == graviton::algorithm::blake3 && id.digest().size() == GRAVITON_DIGEST_SIZE);
    CHECK(id.digest().data()[0] == 0xea && id.raw().size == 5);
    CHECK(OK(blob_id::parse(id.to_string())) == id);
    CHECK(blob_id(id.raw()) == id);
    const blob_id sha = OK(blob_id::of("hello", graviton::algorithm::sha256));
    CHECK(sha.to_string() == "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824:5");
    CHECK(sha != id && !(sha == id));
    for (const char *wrong : {"", "hello", "blake3:00:5", "md5:ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f:5"}) {
        FAILS(invalid_id, blob_id::parse(wrong));
    }
    FAILS(invalid_id, blob_id::parse(id.to_string() + " "));
    FAILS(invalid_argument, blob_id::of("hello", static_cast<graviton::algorithm>(7)));
    CHECK(blob_id().to_string().empty() && blob_id() == blob_id() && blob_id() != id);

    // In the order of C and of listings.
    std::vector<blob_id> all = {id, sha, OK(blob_id::of("")), OK(blob_id::of("other"))};
    graviton_blob_id longer = id.raw();
    longer.size += 1;
    all.emplace_back(longer);
    for (const blob_id &left : all) {
        for (const blob_id &right : all) {
            std::int32_t order = 0;
            CHECK(graviton_blob_id_compare(&left.raw(), &right.raw(), &order, nullptr) == GRAVITON_OK);
            CHECK((left < right) == (order < 0) && (left > right) == (order > 0) && (left == right) == (order == 0));
            CHECK((left <= right) == (order <= 0) && (left >= right) == (order >= 0) && (left != right) == (order != 0));
        }
    }
    std::unordered_map<blob_id, int> hashed;
    std::map<blob_id, int> sorted;
    std::set<std::size_t> hashes;
    for (const blob_id &each : all) {
        hashed[each] += 1;
        sorted[each] += 1;
        hashes.insert(std::hash<blob_id>()(each));
    }
    CHECK(hashed.size() == 5 && sorted.size() == 5 && hashed.at(sha) == 1 && hashes.size() == 4);
    std::ostringstream stream;
    stream << id;
    CHECK(stream.str() == id.to_string());

    graviton_block_key raw{};
    raw.size = 5;
    raw.algo = GRAVITON_ALGO_BLAKE3;
    std::memcpy(raw.digest, id.raw().digest, sizeof(raw.digest));
    const graviton::block_key key(raw);
    CHECK(key.to_string() == id.to_string() && key.size() == 5 && key == graviton::block_key(raw));
    CHECK(std::hash<graviton::block_key>()(key) == std::hash<blob_id>()(id));
    CHECK(OK(graviton::block_key::parse(key.to_string())) == key);
    FAILS(invalid_id, graviton::block_key::parse(OK(blob_id::of("")).to_string()));
    static_assert(std::is_trivially_copyable_v<blob_id> && sizeof(blob_id) == sizeof(graviton_blob_id));
}

void errors()
{
    const graviton::error error = ERROR_OF(graviton::blob_id::parse("no id"));
    CHECK(error.code() == graviton::errc::invalid_id && graviton::name(error.code()) == "invalid-id");
    CHECK(std::string(error.what()).find("no id") != std::string::npos && error.advice()[0] != 0);
    CHECK(!error.retryable() && error.os_error() == 0);
    graviton::error copy = error;
    graviton::error other(GRAVITON_ERROR_TIMEOUT, nullptr);
    CHECK(copy.what() == error.what());
    CHECK(std::string(other.what()) == "timeout" && other.advice()[0] == 0 && !other.retryable());
    other = copy;
    CHECK(other.what() == error.what() && other.code() == copy.code());
    static_assert(std::is_nothrow_copy_constructible_v<graviton::error>);

    const auto codes = graviton::error_codes();
    CHECK(codes.size() == 30 && codes.front() == graviton::errc::invalid_argument && codes.back() == graviton::errc::conflict);
    for (const auto code : codes) {
        CHECK(!graviton::name(code).empty());
    }
    CHECK(graviton::name(graviton::errc::ok) == "ok" && graviton::name(static_cast<graviton::errc>(77)).empty());
    CHECK(graviton::is_retryable(graviton::errc::backend_unavailable) && !graviton::is_retryable(graviton::errc::not_found));
#ifdef GRAVITON_NO_EXCEPTIONS
    graviton::result<std::string> good(std::string("yes")), bad(error);
    CHECK(good && good.has_value() && *good == "yes" && good->size() == 3 && good.value() == "yes");
    CHECK(!bad && !bad.has_value() && bad.error().code() == graviton::errc::invalid_id);
    CHECK(std::move(good).value_or("no") == "yes" && std::move(bad).value_or("no") == "no");
    const graviton::result<void> done;
    CHECK(done && !graviton::result<void>(error));
    done.value();
#endif
}

void facts()
{
    CHECK(graviton::version() == GRAVITON_VERSION && graviton::version_number() == GRAVITON_VERSION_NUMBER);
    CHECK(graviton::recommended_buffer_size() >= 4096);
    const auto settings = graviton::settings();
    bool found = false;
    for (const auto &setting : settings) {
        CHECK(!setting.name.empty() && !setting.meaning.empty());
        found = found || (setting.name == "GRAVITON_HASH" && setting.default_value == "blake3");
    }
    CHECK(found && settings.size() == graviton_setting_count());
}

template <class Handle>
constexpr bool moves_only = std::is_nothrow_move_constructible_v<Handle> && std::is_nothrow_move_assignable_v<Handle>
    && !std::is_copy_constructible_v<Handle> && !std::is_copy_assignable_v<Handle>;

void handles(const std::filesystem::path &directory)
{
    static_assert(moves_only<graviton::store> && moves_only<graviton::reader> && moves_only<graviton::writer>
                  && moves_only<graviton::list> && moves_only<graviton::manifest> && moves_only<graviton::config>);
    auto store = OK(graviton::store::open(directory));
    const auto id = OK(store.put("moved")).id;
    auto reader = OK(store.open_reader(id));
    auto writer = OK(store.open_writer());
    auto list = OK(store.list());
    auto manifest = OK(store.manifest(id));
    CHECK(store.c_handle() && reader.c_handle() && writer.c_handle() && list.c_handle() && manifest.c_handle());

    const graviton::store moved = std::move(store);
    const auto reader2 = std::move(reader);
    auto writer2 = std::move(writer);
    auto list2 = std::move(list);
    auto manifest2 = std::move(manifest);
    FAILS(invalid_argument, store.put("x"));                    // NOLINT(bugprone-use-after-move)
    FAILS(invalid_argument, reader.size());                     // NOLINT(bugprone-use-after-move)
    FAILS(invalid_argument, writer.finish());                   // NOLINT(bugprone-use-after-move)
    FAILS(invalid_argument, list.next());                       // NOLINT(bugprone-use-after-move)
    FAILS(invalid_argument, manifest.next());                   // NOLINT(bugprone-use-after-move)
    CHECK(OK(moved.exists(id)) && OK(reader2.size()) == 5 && OK(writer2.size()) == 0);
    CHECK(OK(list2.next()) && OK(manifest2.next()));
    FAILS(invalid_argument, moved.get(graviton::blob_id()));
}

void configurations(const std::filesystem::path &directory)
{
    auto config = graviton::config(directory).set("GRAVITON_HASH", "sha256");
    CHECK(OK(config.get("GRAVITON_HASH")) == "sha256" && OK(config.get("GRAVITON_FS_ROOT")) == directory.native());
    CHECK(OK(config.get("MINIO_ROOT_PASSWORD")).empty() && config.c_handle());
    FAILS(config, config.get("GRAVITON_NONSENSE"));
    FAILS(not_found, config.open_existing());
    FAILS(not_found, config.open_read_only());
    config.set("GRAVITON_CHUNKER", "fixed:1000").adopt().adopt(false);
    {
        const auto store = OK(config.open());
        CHECK(OK(store.put(noise(2500, 1))).blocks == 3);
    }
    CHECK(OK(OK(config.open_existing()).stats()).blobs == 1);
    const auto reading = OK(config.open_read_only());
    FAILS(forbidden, reading.put("x"));
#ifdef GRAVITON_NO_EXCEPTIONS
    // The first failure is kept.
    auto failing = graviton::config(directory).set("GRAVITON_HASH", "md5").set("GRAVITON_NONSENSE", "").adopt();
    CHECK(std::string(ERROR_OF(failing.open()).what()).find("md5") != std::string::npos);
    FAILS(config, failing.open_existing());
    FAILS(config, failing.open_read_only());
    FAILS(config, failing.get("GRAVITON_HASH"));
#else
    FAILS(config, config.set("GRAVITON_HASH", "md5"));
    FAILS(config, graviton::config().set("GRAVITON_NONSENSE", ""));
    CHECK(OK(config.get("GRAVITON_HASH")) == "sha256");
#endif
    CHECK(OK(graviton::config().get("GRAVITON_FS_ROOT")) == "./.graviton");
    setenv("GRAVITON_GC_GRACE", "7m", 1);
    CHECK(OK(graviton::config::from_env().get("GRAVITON_GC_GRACE")) == "7m");
    setenv("GRAVITON_GC_GRACE", "never", 1);
#ifdef GRAVITON_NO_EXCEPTIONS
    FAILS(config, graviton::config::from_env().open());
#else
    FAILS(config, graviton::config::from_env());
#endif
    unsetenv("GRAVITON_GC_GRACE");
}

} // namespace

int main(int, char **arguments)
{
    const std::filesystem::path directory = arguments[1];
    views();
    ids();
    errors();
    facts();
    handles(directory / "handles");
    configurations(directory / "configurations");
    return 0;
}
