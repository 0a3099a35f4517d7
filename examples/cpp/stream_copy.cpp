// Copies a file into a store and back out, piece by piece, and shows the progress:
// stream_copy DIRECTORY SOURCE TARGET
//
// It never holds the whole file: it reads with a progress callback, and writes through a std::istream.
#include <fstream>
#include <graviton.hpp>
#include <iostream>

namespace {

graviton::flow say(const char *what, std::uint64_t done, std::optional<std::uint64_t> whole)
{
    std::cerr << '\r' << what << ' ';
    if (whole) {
        std::cerr << (*whole == 0 ? 100 : done * 100 / *whole) << " %" << std::flush;
    } else {
        std::cerr << done << " bytes" << std::flush;
    }
    return graviton::flow::go_on;
}

graviton::blob_id copy_in(const graviton::store &store, const char *path)
{
    graviton::put_options options;
    options.progress = [](auto done, auto whole) { return say("in ", done, whole); };
    const auto put = store.put_path(path, options);
    std::cerr << '\n' << put.fresh_blocks << " of " << put.blocks << " blocks were new\n";
    return put.id;
}

void copy_out(const graviton::store &store, const graviton::blob_id &id, const char *path)
{
    std::ofstream target(path, std::ios::binary);
    target.exceptions(std::ios::badbit | std::ios::failbit);
    graviton::istream source(store.open_reader(id));
    source.exceptions(std::ios::badbit);
    std::vector<char> piece(graviton::recommended_buffer_size());
    for (std::uint64_t done = 0; source.read(piece.data(), static_cast<std::streamsize>(piece.size())) || source.gcount() > 0;) {
        target.write(piece.data(), source.gcount());
        done += static_cast<std::uint64_t>(source.gcount());
        say("out", done, id.size());
    }
    target.close();
    std::cerr << '\n';
}

} // namespace

int main(int argc, char **argv)
try {
    if (argc != 4) {
        std::cerr << "usage: stream_copy DIRECTORY SOURCE TARGET\n";
        return 2;
    }
    const auto store = graviton::store::open(argv[1]);
    copy_out(store, copy_in(store, argv[2]), argv[3]);
    return 0;
} catch (const std::exception &error) {
    std::cerr << "\nstream_copy: " << error.what() << '\n';
    return 1;
}
