// Blobs as standard streams: every way to read and write a stream, seeking, and failures, which never look
// like an end.

#include "check.hpp"

#include <iomanip>
#include <sstream>

namespace {

using graviton::blob_id;

std::string letters(std::size_t length)
{
    std::string text(length, ' ');
    for (std::size_t index = 0; index < length; ++index) {
        text[index] = static_cast<char>('a' + index * index % 23);
    }
    return text;
}

void reading(const graviton::store &store)
{
    const std::string text = letters(1'000'000);
    const auto id = OK(store.put(text)).id;
    std::ostringstream copy;
    copy << graviton::istream(OK(store.open_reader(id))).rdbuf();
    CHECK(copy.str() == text);

    graviton::istream in(OK(store.open_reader(id)));
    CHECK(std::string(std::istreambuf_iterator<char>(in), {}) == text && !in.failure());
    in.clear();

    // Every size of pieces, across the edges of the buffer.
    for (const std::size_t piece : {std::size_t{1}, std::size_t{777}, graviton::recommended_buffer_size() - 1,
                                    graviton::recommended_buffer_size(), graviton::recommended_buffer_size() * 2 + 3}) {
        in.clear();
        CHECK(in.seekg(0) && in.tellg() == std::istream::pos_type(0));
        std::string got, part(piece, ' ');
        while (in.read(part.data(), static_cast<std::streamsize>(piece)) || in.gcount() > 0) {
            got.append(part, 0, static_cast<std::size_t>(in.gcount()));
            CHECK(!in.good() || in.tellg() == std::istream::pos_type(static_cast<std::streamoff>(got.size())));
            if (piece == 1 && got.size() == 100'000) {
                got = text;
                break;
            }
        }
        CHECK(got == text);
    }
    in.clear();
    CHECK(in.seekg(-3, std::ios::end) && in.get() == text[text.size() - 3]);
    CHECK(in.seekg(-2, std::ios::cur) && in.get() == text[text.size() - 4]);
    CHECK(!in.seekg(-1'000'000'000, std::ios::cur));
    in.clear();
    CHECK(in.get() == text[text.size() - 3]);
    CHECK(in.seekg(500'000) && in.peek() == text[500'000] && in.tellg() == std::istream::pos_type(500'000));
    CHECK(in.get() == text[500'000] && in.seekg(1000, std::ios::cur) && in.get() == text[501'001]);
    CHECK(in.unget() && in.get() == text[501'001]);
    CHECK(!in.seekg(-1) && in.fail() && !in.bad());
    in.clear();
    CHECK(in.seekg(2'000'000) && in.get() == std::istream::traits_type::eof() && in.eof() && !in.bad());

    const auto lines = OK(store.put("first 1\nsecond 22\n")).id;
    graviton::istream words(OK(store.open_reader(lines)));
    std::string word, line;
    int number = 0;
    CHECK(words >> word >> number && word == "first" && number == 1);
    CHECK(std::getline(words, line) && std::getline(words, line) && line == "second 22" && !std::getline(words, line));
    graviton::istream nothing(OK(store.open_reader(OK(store.put("")).id)));
    CHECK(nothing.peek() == std::istream::traits_type::eof() && !nothing.bad());

    graviton::reader_buffer buffer(OK(store.open_reader(id)));
    CHECK(buffer.sbumpc() == text[0] && OK(buffer.reader().size()) == text.size());
    CHECK(buffer.pubseekoff(0, std::ios::beg, std::ios::out) == std::streambuf::pos_type(std::streambuf::off_type(-1)));
}

void writing(const graviton::store &store)
{
    const std::string text = letters(1'000'000);
    for (const std::size_t piece : {std::size_t{1}, std::size_t{777}, graviton::recommended_buffer_size() - 1,
                                    graviton::recommended_buffer_size(), graviton::recommended_buffer_size() * 2 + 3}) {
        graviton::ostream out(OK(store.open_writer()));
        for (std::size_t at = 0; at < text.size(); at += piece) {
            out.write(text.data() + at, static_cast<std::streamsize>(std::min(piece, text.size() - at)));
        }
        CHECK(out.good() && !out.failure());
        CHECK(OK(out.finish()).id == OK(blob_id::of(text)));
    }
    graviton::ostream out(OK(store.open_writer()));
    out << "number " << std::setw(4) << 42 << std::flush << '\n';
    out.put('x').flush();
    CHECK(OK(out.finish()).id == OK(blob_id::of("number   42\nx")));
    FAILS(invalid_argument, out.finish());
    graviton::ostream none(OK(store.open_writer()));
    CHECK(OK(none.finish()).id.size() == 0);
    {
        graviton::ostream dropped(OK(store.open_writer()));
        dropped << "dropped" << std::flush;
    }
    CHECK(!OK(store.exists(OK(blob_id::of("dropped")))));
    // The position includes buffered bytes; there is none after the end.
    graviton::ostream told(OK(store.open_writer()));
    CHECK(told.tellp() == std::ostream::pos_type(0));
    told << "12345";
    CHECK(told.tellp() == std::ostream::pos_type(5));
    told.write(text.data(), 1'000'000).put('6').flush() << '7';
    CHECK(told.tellp() == std::ostream::pos_type(1'000'007) && told.good());
    CHECK(!told.seekp(3) && !told.bad());
    told.clear();
    CHECK(OK(told.finish()).id.size() == 1'000'007 && told.tellp() == std::ostream::pos_type(-1));

    graviton::writer_buffer buffer(OK(store.open_writer()));
    CHECK(buffer.sputn("plain", 5) == 5 && OK(buffer.finish()).id == OK(blob_id::of("plain")));
}

// Streams that throw instead of only setting a flag. put_stream is meant to reach the end, so it does not
// throw there.
void throwing(const graviton::store &store)
{
    using ios = std::ios_base;
    const std::string text = letters(1'000'000);
    const auto id = OK(blob_id::of(text));
    for (const auto mask : {ios::failbit, ios::eofbit, ios::badbit, ios::failbit | ios::eofbit | ios::badbit}) {
        std::istringstream source(text);
#ifndef GRAVITON_NO_EXCEPTIONS
        source.exceptions(mask);
        CHECK(OK(store.put_stream(source)).id == id && source.rdstate() == ios::eofbit && source.exceptions() == mask);
#else
        CHECK(OK(store.put_stream(source)).id == id && source.rdstate() == ios::eofbit && mask != ios::goodbit);
#endif
    }
#ifndef GRAVITON_NO_EXCEPTIONS
    const auto throws = [](auto call) {
        try {
            call();
        } catch (const std::ios_base::failure &) {
            return true;
        }
        return false;
    };
    graviton::istream in(OK(store.open_reader(id)));
    in.exceptions(ios::failbit);
    std::string room(1'000'001, ' ');
    CHECK(throws([&] { in.read(room.data(), 1'000'001); }) && in.gcount() == 1'000'000 && in.eof() && !in.failure());
    in.clear();
    CHECK(throws([&] { in.seekg(-1); }) && !in.bad() && !in.failure());
    in.clear();
    CHECK(in.seekg(999'999) && in.get() == text.back());
    graviton::ostream out(OK(store.open_writer()));
    out.exceptions(ios::failbit | ios::badbit);
    out << text;
    CHECK(OK(out.finish()).id == id);
    CHECK(ERROR_OF((out << 'x', out.flush(), 0)).code() == graviton::errc::invalid_argument && out.bad());
#endif
}

void failing(const std::filesystem::path &directory)
{
    auto store = OK(graviton::store::open(directory));
    const auto id = OK(store.put(letters(5'000'000))).id;
    graviton::istream in(OK(store.open_reader(id)));
    graviton::istream strict(OK(store.open_reader(id)));
    graviton::reader_buffer plain(OK(store.open_reader(id)));
    graviton::ostream out(OK(store.open_writer()));
    graviton::ostream large(OK(store.open_writer()));
    CHECK(in.get() == 'a' && strict.get() == 'a');
    out << "buffered";
    OK(store.close());

    std::string rest(5'000'000, ' ');
    in.read(rest.data(), 5'000'000);
    CHECK(in.bad() && in.gcount() < 4'999'999 && in.failure() && in.failure()->code() == graviton::errc::closed);
    in.clear();
    CHECK(in.get() == std::istream::traits_type::eof() && in.bad());
    CHECK(!out.flush() && out.bad() && out.failure()->code() == graviton::errc::closed);
    FAILS(closed, out.finish());
    large.write(rest.data(), 5'000'000);
    CHECK(large.bad() && large.failure()->code() == graviton::errc::closed);
    FAILS(closed, large.finish());
#ifdef GRAVITON_NO_EXCEPTIONS
    strict.seekg(0);
    CHECK(strict.fail());
    CHECK(plain.sgetc() == std::streambuf::traits_type::eof() && plain.failure());
#else
    // Thrown with its own type, if the caller asks for that.
    strict.exceptions(std::ios::badbit);
    FAILS(closed, strict.read(rest.data(), 5'000'000));
    FAILS(closed, plain.sgetc());
    FAILS(closed, plain.sgetc());
#endif
}

} // namespace

int main(int, char **arguments)
{
    const std::filesystem::path directory = arguments[1];
    const auto store = OK(graviton::store::open(directory / "store"));
    reading(store);
    writing(store);
    throwing(store);
    failing(directory / "failing");
    return 0;
}
