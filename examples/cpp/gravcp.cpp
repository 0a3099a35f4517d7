// gravcp: copies files into a store, and blobs out of it. See `gravcp --help`.
#include <cerrno>
#include <fcntl.h>
#include <filesystem>
#include <graviton.hpp>
#include <iostream>
#include <string_view>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace {

enum exit_code { done = 0, failed = 1, usage = 2, not_found = 3, damaged = 4 };

constexpr std::string_view help =
    "Copies files into a Graviton store, and blobs out of it.\n"
    "\n"
    "usage: gravcp STORE FILE...          prints the id and the name of each; - is standard input\n"
    "       gravcp --get STORE ID [FILE]  to a file, or to standard output\n"
    "       gravcp --help\n"
    "\n"
    "STORE is a directory, which is created if it does not exist. FILE appears only when it is complete.\n"
    "Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 corrupt or missing data.\n";

/// Runs the action, prints the error if it fails, and returns the exit code.
template <class Work>
exit_code attempt(std::string_view what, Work work)
{
    try {
        work();
        return done;
    } catch (const graviton::error &error) {
        const std::string_view advice = error.advice();
        std::cerr << "gravcp: " << what << ": " << error.what() << (advice.empty() ? "" : "; ") << advice << '\n';
        switch (error.code()) {
        case graviton::errc::not_found:
            return not_found;
        case graviton::errc::corrupt_block:
        case graviton::errc::missing_block:
        case graviton::errc::corrupt_database:
            return damaged;
        default:
            return failed;
        }
    } catch (const std::exception &error) {
        std::cerr << "gravcp: " << what << ": " << error.what() << '\n';
        return failed;
    }
}

[[noreturn]] void throw_errno(const std::string &what)
{
    throw std::system_error(errno, std::generic_category(), what);
}

void put(const graviton::store &store, const std::string &name)
{
    const auto receipt = name == "-" ? store.put_fd(STDIN_FILENO) : store.put_path(name);
    std::cout << receipt.id << "  " << name << std::endl;
    if (!std::cout) {
        throw_errno("cannot write to standard output");
    }
}

/// A file beside the target: renamed to the target when it is complete, otherwise removed.
class partial_file {
public:
    explicit partial_file(std::string target)
        : target_(std::move(target)), name_(target_ + ".partial"),
          fd_(open(name_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666))
    {
        if (fd_ < 0) {
            throw_errno("cannot open " + name_);
        }
    }
    partial_file(const partial_file &) = delete;
    partial_file &operator=(const partial_file &) = delete;
    ~partial_file()
    {
        if (fd_ >= 0) {
            close(fd_);
        }
        if (!complete_) {
            unlink(name_.c_str());
        }
    }
    int fd() const { return fd_; }
    void complete()
    {
        if (close(std::exchange(fd_, -1)) != 0) {
            throw_errno("cannot write " + name_);
        }
        std::filesystem::rename(name_, target_);
        complete_ = true;
    }

private:
    std::string target_;
    std::string name_;
    int fd_;
    bool complete_ = false;
};

void get(const graviton::store &store, const char *text, const char *name)
{
    const graviton::blob_id id = graviton::blob_id::parse(text);
    if (name == nullptr) {
        store.get_fd(id, STDOUT_FILENO);
        return;
    }
    partial_file file(name);
    store.get_fd(id, file.fd());
    file.complete();
}

} // namespace

int main(int argc, char **argv)
{
    const std::string_view first = argc > 1 ? argv[1] : "";
    if (argc == 2 && (first == "--help" || first == "-h")) {
        std::cout << help;
        return done;
    }
    const bool getting = first == "--get";
    if (getting ? argc < 4 || argc > 5 : argc < 3 || first.substr(0, 1) == "-") {
        std::cerr << "gravcp: wrong arguments; see gravcp --help\n";
        return usage;
    }
    const char *directory = argv[getting ? 2 : 1];
    exit_code result = done;
    const exit_code all = attempt(directory, [&] {
        const graviton::config config(directory);
        auto store = getting ? config.open_read_only() : config.open();
        for (int index = getting ? 3 : 2; index < argc; index = getting ? argc : index + 1) {
            const exit_code one = attempt(argv[index], [&] {
                if (getting) {
                    get(store, argv[index], argc == 5 ? argv[4] : nullptr);
                } else {
                    put(store, argv[index]);
                }
            });
            result = result == done ? one : result;
        }
        store.close();
    });
    return result == done ? all : result;
}
