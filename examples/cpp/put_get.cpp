// Puts a text into a store and gets it back: put_get DIRECTORY TEXT
#include <graviton.hpp>
#include <iostream>

int main(int argc, char **argv)
try {
    if (argc != 3) {
        std::cerr << "usage: put_get DIRECTORY TEXT\n";
        return 2;
    }
    auto store = graviton::store::open(argv[1]);

    const graviton::put_receipt put = store.put(argv[2]);
    std::cout << put.id << '\n';

    const graviton::blob_id id = graviton::blob_id::parse(put.id.to_string());
    std::cout << store.get<std::string>(id) << '\n';

    store.close();
    return 0;
} catch (const graviton::error &error) {
    std::cerr << "put_get: " << error.what() << ". " << error.advice() << '\n';
    return 1;
}
