// Callbacks: progress, aborting, ending early, and throwing, from every place that calls one.

#include "check.hpp"

#include <atomic>
#include <stdexcept>
#include <thread>

namespace {

using graviton::flow;

const auto large = noise(8'000'000, 2);

void progress(const graviton::store &store)
{
    std::uint64_t last = 0;
    int calls = 0;
    std::optional<std::uint64_t> whole;
    graviton::put_options options;
    options.progress = [&](std::uint64_t done, std::optional<std::uint64_t> total) {
        CHECK(done > last);
        last = done;
        whole = total;
        ++calls;
        return flow::go_on;
    };
    const auto id = OK(store.put(large, options)).id;
    CHECK(last == large.size() && whole == large.size() && calls > 1);
    last = 0;
    CHECK(OK(store.put_callback([](graviton::bytes_span) { return 0; }, options)).id.size() == 0 && last == 0);
    int given = 0;
    OK(store.put_callback([&](graviton::bytes_span room) { return ++given > 3 ? 0 : room.size(); }, options));
    CHECK(last > 0 && !whole);
    last = 0;
    CHECK(OK(store.get(id, options.progress)) == large && last == large.size());
    last = 0;
    std::vector<char> room(large.size());
    CHECK(OK(store.get_into(id, room, options.progress)) == large.size() && last == large.size());
}

void aborts(const graviton::store &store)
{
    graviton::put_options options;
    options.progress = [](std::uint64_t done, std::optional<std::uint64_t>) { return done > 1000 ? flow::cancel : flow::go_on; };
    const auto id = OK(graviton::blob_id::of("never there" + std::string(large.begin(), large.end())));
    FAILS(cancelled, store.put("never there" + std::string(large.begin(), large.end()), options));
    CHECK(!OK(store.exists(id)));
    const auto there = OK(store.put(large)).id;
    FAILS(cancelled, store.get(there, options.progress));
    FAILS(cancelled, store.get(there, [](std::uint64_t, std::optional<std::uint64_t>) { return flow::stop; }));
    FAILS(cancelled, store.gc({}, [](const graviton::gc_report &) { return flow::cancel; }));
}

void cancelling(const graviton::store &store, const std::filesystem::path &directory)
{
    std::atomic<bool> over = false;
    std::atomic<int> asked = 0;
    // Assignment releases the old handle, and later calls ask the other handle's callback.
    auto assigned = OK(OK(store.with_cancel([] { return flow::go_on; })).open_writer());
    OK(assigned.write("dropped"));
    assigned = OK(OK(store.with_cancel([] { return flow::go_on; })).open_writer());
    OK(assigned.write("kept"));
    CHECK(OK(assigned.finish()).id == OK(graviton::blob_id::of("kept")));
    CHECK(!OK(store.exists(OK(graviton::blob_id::of("dropped")))));
    const auto patient = OK(store.with_cancel([&] {
        ++asked;
        return over ? flow::cancel : flow::go_on;
    }));
    const auto id = OK(patient.put(large)).id;
    over = true;
    // Handles keep the callback, even without the store that had it.
    std::optional<graviton::store> gone = OK(store.with_cancel([kept = std::vector<flow>(100, flow::go_on)] { return kept[99]; }));
    auto reader = OK(gone->open_reader(id));
    auto list = OK(gone->list());
    gone.reset();
    std::vector<char> room(100'000);
    CHECK(OK(reader.read(room)) > 0 && OK(list.next()));
    auto config = graviton::config(directory).set_cancel([&] { return flow::cancel; }).set_cancel(nullptr);
    CHECK(!OK(OK(config.open()).exists(id)));
    // More bytes than any machine writes before it asks.
    const auto much = noise(96'000'000, 3);
    FAILS(cancelled, patient.put(much));
    CHECK(asked > 0 && !OK(store.exists(OK(graviton::blob_id::of(much)))));
    auto writer = OK(patient.open_writer());
    const auto write_and_finish = [&]() -> graviton::outcome<graviton::put_receipt> {
#ifdef GRAVITON_NO_EXCEPTIONS
        if (const auto done = writer.write(much); !done) {
            return done.error();
        }
#else
        writer.write(much);
#endif
        return writer.finish();
    };
    FAILS(cancelled, write_and_finish());
    FAILS(cancelled, writer.finish());
}

#ifndef GRAVITON_NO_EXCEPTIONS

/// An exception that only a test throws.
struct thrown {
    int number;
};

template <class Call>
int number_of(Call call)
{
    try {
        call();
    } catch (const thrown &what) {
        return what.number;
    }
    return -1;
}

void throwing(const graviton::store &store, const graviton::store &other)
{
    const auto much = noise(96'000'000, 4);
    const auto id = store.put(large).id;
    graviton::put_options options;
    options.progress = [](std::uint64_t, std::optional<std::uint64_t>) -> flow { throw thrown{1}; };
    CHECK(number_of([&] { store.put(large, options); }) == 1);
    CHECK(number_of([&] { store.put_path("/proc/self/exe", options); }) == 1);
    CHECK(number_of([&] { store.get(id, options.progress); }) == 1);
    CHECK(number_of([&] { store.put_callback([](graviton::bytes_span) -> std::size_t { throw thrown{2}; }); }) == 2);
    CHECK(number_of([&] { store.gc({}, [](const graviton::gc_report &) -> flow { throw thrown{3}; }); }) == 3);
    CHECK(number_of([&] { store.verify({}, [](const graviton::verify_event &) -> flow { throw thrown{4}; }); }) == 4);
    CHECK(number_of([&] { other.copy_from(store, [](const graviton::copy_report &) -> flow { throw thrown{5}; }); }) == 5);
    CHECK(number_of([&] { other.repair_from(store, [](const graviton::repair_report &) -> flow { throw thrown{6}; }); }) == 6);
    const auto questioned = store.with_cancel([]() -> flow { throw thrown{7}; });
    CHECK(number_of([&] { questioned.put(much); }) == 7);
    // The last call too, whose answer is ignored. (The number of earlier calls depends on other cleanup.)
    CHECK(number_of([&] {
        store.gc({}, [&](const graviton::gc_report &report) { return report.complete == 0 ? flow::go_on : throw thrown{8}; });
    }) == 8);

    // One inside another: the exception that ends the inner call leaves it, and may be caught there.
    options.progress = [&](std::uint64_t, std::optional<std::uint64_t>) {
        CHECK(number_of([&] { store.put_callback([](graviton::bytes_span) -> std::size_t { throw thrown{9}; }); }) == 9);
        CHECK(store.exists(id));
        return flow::go_on;
    };
    CHECK(store.put(noise(300'000, 5), options).created);
    options.progress = [&](std::uint64_t, std::optional<std::uint64_t>) {
        store.put_callback([](graviton::bytes_span) -> std::size_t { throw thrown{10}; });
        return flow::go_on;
    };
    CHECK(number_of([&] { store.put(noise(300'000, 6), options); }) == 10);
    // The library's own errors pass through unchanged.
    options.progress = [&](std::uint64_t, std::optional<std::uint64_t>) {
        store.get(graviton::blob_id::of("nothing"));
        return flow::go_on;
    };
    FAILS(not_found, store.put(noise(300'000, 7), options));

    // Each thread has its own exception.
    std::vector<std::thread> threads;
    std::vector<int> numbers(8, -1);
    for (int number = 0; number < 8; ++number) {
        threads.emplace_back([&, number] {
            for (int round = 0; round < 20; ++round) {
                numbers[static_cast<std::size_t>(number)] = number_of([&] {
                    store.put_callback([&](graviton::bytes_span) -> std::size_t { throw thrown{number}; });
                });
                CHECK(store.put("each thread").id.size() == 11);
            }
        });
    }
    for (auto &thread : threads) {
        thread.join();
    }
    for (int number = 0; number < 8; ++number) {
        CHECK(numbers[static_cast<std::size_t>(number)] == number);
    }
    // No exception remains that a later call would throw.
    CHECK(store.get(id) == large && store.exists(id));
    store.verify();
}

#endif

} // namespace

int main(int, char **arguments)
{
    const std::filesystem::path directory = arguments[1];
    const auto store = OK(graviton::store::open(directory / "store"));
    const auto other = OK(graviton::store::open(directory / "other"));
    progress(store);
    aborts(store);
    cancelling(store, directory / "third");
#ifndef GRAVITON_NO_EXCEPTIONS
    throwing(store, other);
#else
    // Without exceptions, a callback can only stop.
    CHECK(OK(other.copy_from(store, [](const graviton::copy_report &) { return flow::stop; })).complete == 0);
#endif
    return 0;
}
