//! A process that may open few files, as many have: a put of many blocks goes on with those it gets, and many
//! puts at once wait for each other instead of failing. The limit is of the whole process, hence one test.

use graviton_core::testing::Recipe;
use graviton_core::{BlobId, Config};
use rustix::process::{Resource, Rlimit, setrlimit};

#[test]
fn puts_get_by_with_few_files() {
    setrlimit(Resource::Nofile, Rlimit { current: Some(80), maximum: Some(80) }).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let config = Config::for_directory(directory.path()).set("GRAVITON_CHUNKER", "fixed:500").unwrap();
    let store = config.open().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let store = &store;
            scope.spawn(move || {
                // One block; many, of which one put may hold more than there are files; more than small.
                for length in [400, 30_000, 60_000] {
                    let recipe: Recipe = format!("xof:{}:{length}", thread % 10).parse().unwrap();
                    let bytes = recipe.bytes();
                    let id = store.put(&bytes[..]).unwrap().id;
                    assert_eq!(id, BlobId::of(id.algo(), &bytes));
                    assert!(store.read_range(&id, 0..u64::MAX).unwrap() == bytes);
                }
            });
        }
    });
    assert_eq!(store.list(None, 100).unwrap().len(), 30);
    let large = "xof:large:2500000".parse::<Recipe>().unwrap().bytes();
    let id = store.put(&large[..]).unwrap().id;
    assert!(store.read_range(&id, 0..u64::MAX).unwrap() == large);
}
