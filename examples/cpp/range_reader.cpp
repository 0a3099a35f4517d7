// Writes a blob to a file with several threads, each of which takes the next piece:
// range_reader DIRECTORY ID TARGET THREADS
//
// All threads share one reader: any number of threads may call reader::read_at at once.
#include <atomic>
#include <cstdlib>
#include <exception>
#include <fcntl.h>
#include <graviton.hpp>
#include <iostream>
#include <mutex>
#include <system_error>
#include <thread>
#include <unistd.h>

namespace {

constexpr std::uint64_t piece = 1 << 20;

void copy(const graviton::reader &reader, int target, unsigned count)
{
    const std::uint64_t size = reader.size();
    std::atomic<std::uint64_t> next = 0;
    std::exception_ptr failure;
    std::mutex failure_lock;
    const auto run = [&] {
        try {
            std::vector<std::uint8_t> buffer(piece);
            for (std::uint64_t offset; (offset = next.fetch_add(piece)) < size;) {
                const auto got = reader.read_at(offset, buffer);
                if (pwrite(target, buffer.data(), got, static_cast<off_t>(offset)) != static_cast<ssize_t>(got)) {
                    throw std::system_error(errno, std::generic_category(), "cannot write the target");
                }
            }
        } catch (...) {
            next = size;        // so that the others end
            const std::lock_guard lock(failure_lock);
            failure = std::current_exception();
        }
    };
    std::vector<std::thread> threads;
    for (unsigned number = 0; number < count; ++number) {
        threads.emplace_back(run);
    }
    for (auto &thread : threads) {
        thread.join();
    }
    if (failure) {
        std::rethrow_exception(failure);
    }
}

} // namespace

int main(int argc, char **argv)
try {
    const int threads = argc == 5 ? std::atoi(argv[4]) : 0;
    if (threads < 1 || threads > 64) {
        std::cerr << "usage: range_reader DIRECTORY ID TARGET THREADS    (1 to 64 threads)\n";
        return 2;
    }
    const auto store = graviton::config(argv[1]).open_read_only();
    const auto reader = store.open_reader(graviton::blob_id::parse(argv[2]));
    const int target = open(argv[3], O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (target < 0) {
        throw std::system_error(errno, std::generic_category(), "cannot open the target");
    }
    copy(reader, target, static_cast<unsigned>(threads));
    if (close(target) != 0) {
        throw std::system_error(errno, std::generic_category(), "cannot write the target");
    }
    return 0;
} catch (const std::exception &error) {
    std::cerr << "range_reader: " << error.what() << '\n';
    return 1;
}
