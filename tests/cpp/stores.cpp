// All operations of a store: put and get, walks, deletion and collection, verification, copies and repair,
// threads.

#include "check.hpp"

#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <fstream>
#include <sstream>
#include <thread>
#include <unistd.h>

namespace {

namespace fs = std::filesystem;
using graviton::blob_id;
using graviton::flow;

const auto large = noise(3'000'000, 1);

graviton::store open(const fs::path &directory)
{
    return OK(graviton::config(directory).set("GRAVITON_CHUNKER", "fixed:100000").open());
}

/// A descriptor that is closed at the end.
struct descriptor {
    int fd;
    ~descriptor() { close(fd); }
};

void put_and_get(const fs::path &directory)
{
    const auto store = open(directory / "store");
    const auto put = OK(store.put(large));
    CHECK(put.created && put.blocks == 30 && put.fresh_blocks == 30 && put.fresh_bytes == large.size() &&
          put.fresh_stored_bytes == large.size());
    CHECK(put.id == OK(blob_id::of(large)));
    const auto again = OK(store.put(large));
    CHECK(!again.created && again.id == put.id && again.blocks == 30 && again.fresh_blocks == 0 && again.fresh_bytes == 0);
    CHECK(OK(store.put("")).id.size() == 0);

    CHECK(OK(store.get(put.id)) == large);
    CHECK(OK(store.get<std::string>(put.id)) == std::string(large.begin(), large.end()));
    CHECK(OK(store.get<std::vector<std::byte>>(OK(store.put("")).id)).empty());
    std::vector<unsigned char> room(large.size() + 1);
    CHECK(OK(store.get_into(put.id, room)) == large.size() && std::equal(large.begin(), large.end(), room.begin()));
    FAILS(invalid_argument, store.get_into(put.id, {room.data(), large.size() - 1}));

    // A made-up id allocates no memory of its size.
    graviton_blob_id huge = put.id.raw();
    huge.size = 1ULL << 62;
    FAILS(not_found, store.get(huge));
    huge.size = 5;
    FAILS(not_found, store.get(huge));
    FAILS(not_found, store.open_reader(huge));
    FAILS(not_found, store.manifest(huge));

    CHECK(OK(store.read_range(put.id, 2'999'990, {room.data(), 100})) == 10);
    CHECK(std::equal(large.end() - 10, large.end(), room.begin()));
    FAILS(range_not_satisfiable, store.read_range(put.id, 3'000'001, room));

    // Files and descriptors.
    const auto path = directory / "file";
    std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char *>(large.data()), 3'000'000);
    CHECK(OK(store.put_path(path)).id == put.id);
    FAILS(not_found, store.put_path(directory / "nothing"));
    CHECK(ERROR_OF(store.put_path(directory / "nothing")).os_error() == ENOENT);
    {
        const descriptor in{::open(path.c_str(), O_RDONLY)};
        CHECK(OK(store.put_fd(in.fd)).id == put.id);
        const descriptor out{::open((directory / "out").c_str(), O_WRONLY | O_CREAT, 0600)};
        OK(store.get_fd(put.id, out.fd));
        CHECK(OK(store.put_path(directory / "out")).id == put.id);
    }
    FAILS(invalid_argument, store.put_fd(-1));

    // A callback and a stream.
    std::size_t given = 0;
    const graviton::read_callback read = [&](graviton::bytes_span to) -> std::optional<std::size_t> {
        const auto count = std::min({to.size(), std::size_t{1234}, large.size() - given});
        std::copy_n(large.begin() + static_cast<std::ptrdiff_t>(given), count, to.data());
        given += count;
        return count;
    };
    CHECK(OK(store.put_callback(read)).id == put.id);
    FAILS(cancelled, store.put_callback([](graviton::bytes_span) { return std::nullopt; }));
    FAILS(invalid_argument, store.put_callback(nullptr));
    std::ifstream stream(path, std::ios::binary);
    CHECK(OK(store.put_stream(stream)).id == put.id);
    std::istringstream text("a stream's text");
    text.ignore(2);
    CHECK(OK(store.put_stream(text)).id == OK(blob_id::of("stream's text")));
    std::istringstream bad;
    bad.setstate(std::ios::badbit);
    FAILS(cancelled, store.put_stream(bad));
    std::ifstream never_opened("/nonexistent");
    FAILS(cancelled, store.put_stream(never_opened));

    // With an expected id.
    graviton::put_options options;
    options.expected = put.id;
    CHECK(OK(store.put(large, options)).id == put.id);
    FAILS(digest_mismatch, store.put("other", options));
    FAILS(digest_mismatch, store.put_path("/dev/null", options));
}

void readers_and_writers(const fs::path &directory)
{
    auto store = open(directory);
    auto writer = OK(store.open_writer());
    for (std::size_t at = 0; at < large.size(); at += 70'000) {
        OK(writer.write({large.data() + at, std::min<std::size_t>(70'000, large.size() - at)}));
    }
    CHECK(OK(writer.size()) == large.size());
    const auto put = OK(writer.finish());
    CHECK(put.id == OK(blob_id::of(large)) && put.created);
    FAILS(invalid_argument, writer.write("more"));
    {
        auto dropped = OK(store.open_writer());
        OK(dropped.write("never finished"));
    }
    CHECK(!OK(store.exists(OK(blob_id::of("never finished")))));
    auto expecting = OK(store.open_writer(put.id));
    OK(expecting.write("other"));
    FAILS(digest_mismatch, expecting.finish());

    auto reader = OK(store.open_reader(put.id));
    CHECK(OK(reader.size()) == large.size() && OK(reader.id()) == put.id && OK(reader.tell()) == 0);
    std::vector<std::uint8_t> all;
    std::vector<std::uint8_t> room(50'001);
    while (const auto count = OK(reader.read(room))) {
        all.insert(all.end(), room.begin(), room.begin() + static_cast<std::ptrdiff_t>(count));
    }
    CHECK(all == large && OK(reader.tell()) == large.size() && OK(reader.read({})) == 0);
    CHECK(OK(reader.seek(-10, std::ios::end)) == 2'999'990 && OK(reader.seek(5, std::ios::cur)) == 2'999'995);
    CHECK(OK(reader.read(room)) == 5 && OK(reader.seek(7)) == 7);
    FAILS(invalid_argument, reader.seek(-1));
    CHECK(OK(reader.read_at(1'000'000, room)) == room.size() && OK(reader.tell()) == 7);
    CHECK(std::equal(room.begin(), room.end(), large.begin() + 1'000'000) && OK(reader.read_at(4'000'000, room)) == 0);

    // Many threads on one reader, all beside the one that moves it.
    const auto &shared = reader;
    std::vector<std::thread> threads;
    std::vector<int> wrong(16);
    for (std::size_t number = 0; number < wrong.size(); ++number) {
        threads.emplace_back([&, number] {
            std::vector<std::uint8_t> own(4096);
            for (std::size_t round = 0; round < 20; ++round) {
                const auto at = (number * 7919 + round * 104'729) % (large.size() - own.size());
                const auto count = OK(shared.read_at(at, own));
                wrong[number] += count != own.size() || !std::equal(own.begin(), own.end(), large.data() + at);
            }
        });
    }
    CHECK(OK(reader.seek(0)) == 0 && OK(reader.read(room)) > 0);
    for (auto &thread : threads) {
        thread.join();
    }
    CHECK(wrong == std::vector<int>(16));

    // Open readers and writers work without the handle that opened them, but not after a close.
    auto unfinished = OK(store.open_writer());
    auto other = OK(store.with_cancel(nullptr));
    store = OK(graviton::store::open(directory / "elsewhere"));
    CHECK(OK(reader.seek(0)) == 0 && OK(reader.read(room)) > 0);
    OK(other.close());
    OK(other.close());
    FAILS(closed, reader.read(room));
    FAILS(closed, reader.read_at(0, room));
    FAILS(closed, unfinished.write("x"));
    FAILS(closed, other.put("x"));
}

void walks(const fs::path &directory)
{
    const auto store = open(directory);
    std::vector<blob_id> ids;
    const auto before = std::chrono::system_clock::now() - std::chrono::hours(1);
    for (int number = 0; number < 25; ++number) {
        ids.push_back(OK(store.put("blob " + std::to_string(number))).id);
    }
    std::sort(ids.begin(), ids.end());
    std::vector<blob_id> listed;
    auto list = OK(store.list());
    for (const auto &element : list) {
        const graviton::blob_stat &blob = OK(graviton::outcome<graviton::blob_stat>(element));
        listed.push_back(blob.id);
        CHECK(blob.blocks == 1 && blob.chunker == "fixed:100000" && blob.created_at > before);
    }
    CHECK(listed == ids && !OK(list.next()) && list.begin() == list.end());
    auto rest = OK(store.list(ids[22]));
    CHECK(OK(rest.next())->id == ids[23] && OK(rest.next())->id == ids[24] && !OK(rest.next()));
    const auto stat = OK(store.stat(ids[3]));
    CHECK(stat.id == ids[3] && stat.blocks == 1);

    const auto id = OK(store.put(large)).id;
    auto manifest = OK(store.manifest(id));
    std::uint64_t offset = 0;
    for (auto at = manifest.begin(); at != manifest.end(); ++at) {
        const auto entry = OK(graviton::outcome<graviton::manifest_entry>(*at));
        CHECK(entry.offset == offset && entry.key.size() == 100'000);
        CHECK(entry.key.to_string() == OK(blob_id::of({large.data() + offset, 100'000})).to_string());
        offset += entry.key.size();
    }
    CHECK(offset == large.size());
    auto last = OK(store.manifest(id, 2'950'000));
    CHECK(OK(last.next())->offset == 2'900'000 && !OK(last.next()));
    const auto stats = OK(store.stats());
    CHECK(stats.blobs == 26 && stats.blocks == 55 && stats.logical_bytes == stats.stored_bytes && stats.dedup_ratio > 0.99);

    // An error in a walk is its last element, or thrown.
    auto other = OK(graviton::store::open(directory));
    auto broken = OK(other.list());
    OK(other.close());
    FAILS(closed, broken.next());
#ifdef GRAVITON_NO_EXCEPTIONS
    int elements = 0;
    for (const auto &element : broken) {
        CHECK(!element && element.error().code() == graviton::errc::closed);
        ++elements;
    }
    CHECK(elements == 1);
#else
    FAILS(closed, broken.begin());
#endif
}

void deletion(const fs::path &directory)
{
    const auto store = open(directory / "store");
    const auto id = OK(store.put(large)).id;
    const auto kept = OK(store.put("kept")).id;
    OK(store.remove(id));
    CHECK(!OK(store.exists(id)) && OK(store.exists(kept)));
    FAILS(not_found, store.remove(id));
    FAILS(not_found, store.stat(id));
    CHECK(OK(store.stats()).dead_blobs == 1 && OK(store.stats()).dead_bytes == large.size());
    OK(store.restore(id));
    CHECK(OK(store.get(id)) == large);
    OK(store.restore(id));
    OK(store.remove(id));

    // Nothing is collected within the grace.
    CHECK(OK(store.gc()).blobs == 0);
    graviton::gc_options options;
    options.grace = std::chrono::milliseconds(-1);
    FAILS(invalid_argument, store.gc(options));
    options.grace = std::chrono::milliseconds(0);
    options.dry_run = true;
    int told = 0;
    const auto plan = OK(store.gc(options, [&](const graviton::gc_report &report) {
        told += report.dry_run == 1;
        return flow::go_on;
    }));
    CHECK(told > 0 && plan.blocks == 30 && plan.complete == 1 && plan.named == std::vector<blob_id>{id} && plan.named_count == 1);
    options.dry_run = false;
    options.max_blocks = 10;
    const auto some = OK(store.gc(options));
    CHECK(some.blocks == 10 && some.complete == 0 && some.named.empty());
    options.max_blocks = 0;
    options.max_time = std::chrono::hours(1);
    options.max_bytes = 1ULL << 40;
    options.blocks_per_second = 1'000'000;
    const auto all = OK(store.gc(options));
    CHECK(all.blocks == 20 && all.complete == 1 && all.bytes == 2'000'000);
    FAILS(not_found, store.restore(id));
    CHECK(OK(store.stats()).blobs == 1 && OK(store.get<std::string>(kept)) == "kept");

    int steps = 0;
    const auto packed = OK(store.repack("packs", [&](const graviton::repack_report &report) {
        steps += report.damaged == 0;
        return flow::go_on;
    }));
    CHECK(steps > 0 && packed.blocks == 1 && packed.complete == 1 && OK(store.get<std::string>(kept)) == "kept");
    CHECK(OK(store.repack("files")).blocks == 1 && OK(store.get<std::string>(kept)) == "kept");
    FAILS(invalid_argument, store.repack("boxes"));

    OK(store.backup(directory / "backup.db"));
    CHECK(fs::file_size(directory / "backup.db") > 0);
    // A backup never replaces an existing file.
    FAILS(invalid_argument, store.backup(directory / "backup.db"));
    // It is not accepted as the database until it is told to take over.
    auto of_the_backup = graviton::config(directory / "store");
    of_the_backup.set("GRAVITON_MANIFEST_URL", "sqlite:" + (directory / "backup.db").string());
    const auto copy = OK(of_the_backup.open());
    CHECK(OK(copy.get<std::string>(kept)) == "kept");
    FAILS(config, copy.put("more"));
    CHECK(OK(OK(of_the_backup.take_over().open()).put("more")).created);
    FAILS(config, store.gc());
}

/// The file of a block.
fs::path file_of(const fs::path &root, const graviton::block_key &key)
{
    auto text = key.to_string();
    const auto colon = text.rfind(':');
    return root / "cas/blocks/blake3" / (text.substr(7, colon - 7) + "-" + text.substr(colon + 1));
}

void damage(const fs::path &directory)
{
    const auto root = directory / "store";
    const auto store = open(root);
    const auto id = OK(store.put(large)).id;
    const auto other_id = OK(store.put("intact")).id;
    const auto mirror = open(directory / "mirror");
    std::vector<graviton::copy_report> told;
    const auto copied = OK(mirror.copy_from(store, [&](const graviton::copy_report &report) {
        told.push_back(report);
        return flow::go_on;
    }));
    CHECK(copied.blobs == 2 && copied.blocks == 31 && copied.complete == 1 && copied.damaged.empty());
    CHECK(!told.empty() && told.back().blobs == 2);
    CHECK(OK(mirror.copy_from(store, {id})).present == 1);
    // An empty vector is not the same as none.
    const auto untouched = open(directory / "untouched");
    const std::vector<blob_id> nobody;
    CHECK(OK(untouched.copy_from(store, nobody)).complete == 1 && OK(untouched.stats()).blobs == 0);
    graviton::verify_options none;
    none.ids = nobody;
    CHECK(OK(store.verify(none)).blobs == 0 && OK(store.verify(none)).clean == 1);

    const auto clean = OK(store.verify());
    CHECK(clean.clean == 1 && clean.complete == 1 && clean.blobs == 2 && clean.blocks == 31 && clean.bytes == 0);

    // One block is removed, one shortened, one changed, and one added.
    std::vector<graviton::block_key> keys;
    auto manifest = OK(store.manifest(id));
    while (const auto entry = OK(manifest.next())) {
        CHECK(OK(store.read_block(entry->key)).size() == entry->key.size());
        keys.push_back(entry->key);
    }
    fs::remove(file_of(root, keys[0]));
    for (const auto &key : {keys[1], keys[2]}) {
        fs::permissions(file_of(root, key), fs::perms::owner_write, fs::perm_options::add);
    }
    fs::resize_file(file_of(root, keys[1]), 99);
    std::fstream(file_of(root, keys[2]), std::ios::in | std::ios::out | std::ios::binary).put('!').put('?').put('!');
    fs::copy_file(file_of(directory / "mirror", keys[3]), root / "cas/blocks/blake3" / (std::string(64, 'a') + "-100000"));

    graviton::verify_options options;
    options.deep = true;
    options.bytes_per_second = 1ULL << 40;
    std::vector<graviton::damage> damages(keys.size(), graviton::damage::none);
    int strays = 0, progress = 0;
    const auto report = OK(store.verify(options, [&](const graviton::verify_event &event) {
        if (event.kind == graviton::verify_kind::block) {
            for (std::size_t index = 0; index < keys.size(); ++index) {
                if (keys[index] == event.block) {
                    damages[index] = event.damage;
                }
            }
            CHECK(event.blobs == std::vector<blob_id>{id} && event.text.empty());
            CHECK(event.damage != graviton::damage::wrong_length || event.length == 99);
        } else if (event.kind == graviton::verify_kind::unreferenced) {
            strays += event.length == 100'000 && event.block.size() == 100'000;
        } else {
            progress += event.kind == graviton::verify_kind::progress && event.report != nullptr;
        }
        return flow::go_on;
    }));
    CHECK(report.clean == 0 && report.missing == 1 && report.corrupt == 2 && report.unreferenced == 1 && strays == 1);
    CHECK(damages[0] == graviton::damage::missing && damages[1] == graviton::damage::wrong_length
          && damages[2] == graviton::damage::corrupt && damages[3] == graviton::damage::none);
    CHECK(progress > 0);
    FAILS(missing_block, store.get(id));
    options.ids = std::vector{other_id};
    CHECK(OK(store.verify(options)).clean == 1);

    // Ended early, and continued.
    options.ids.reset();
    auto early = OK(store.verify(options, [](const graviton::verify_event &) { return flow::stop; }));
    CHECK(early.complete == 0 && early.cursor[0] != 0);
    options.from = early.cursor;
    CHECK(OK(store.verify(options)).complete == 1);
    options.from = "nonsense";
    FAILS(invalid_argument, store.verify(options));
    FAILS(cancelled, store.verify({}, [](const graviton::verify_event &) { return flow::cancel; }));

    // A blob without a whole copy is left out, and named.
    const auto empty = open(directory / "empty");
    const auto left_out = OK(empty.copy_from(store));
    CHECK(left_out.damaged == std::vector<blob_id>{id} && left_out.damaged_count == 1 && left_out.blobs == 1);
    const auto lost = OK(store.repair_from(empty));
    CHECK(lost.repaired == 0 && lost.lost.size() == 3 && lost.lost_count == 3);
    for (const auto &key : lost.lost) {
        CHECK(key == keys[0] || key == keys[1] || key == keys[2]);
    }
    int steps = 0;
    const auto mended = OK(store.repair_from(mirror, [&](const graviton::repair_report &) {
        ++steps;
        return flow::go_on;
    }));
    CHECK(mended.repaired == 3 && mended.lost.empty() && mended.complete == 1 && mended.checked == 31 && steps > 0);
    CHECK(OK(store.get(id)) == large);
    graviton::verify_options adopting;
    adopting.adopt = true;
    adopting.rebuild = true;
    CHECK(OK(store.verify(adopting)).clean == 1);
    graviton::gc_options now;
    now.grace = std::chrono::milliseconds(0);
    CHECK(OK(store.gc(now)).blocks == 1);
}

} // namespace

int main(int, char **arguments)
{
    const fs::path directory = arguments[1];
    put_and_get(directory);
    readers_and_writers(directory / "readers");
    walks(directory / "walks");
    fs::create_directory(directory / "deletion");
    deletion(directory / "deletion");
    fs::create_directory(directory / "damage");
    damage(directory / "damage");
    return 0;
}
