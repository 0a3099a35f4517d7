//! Real faults of a store, as a client sees them: a full disk, a damaged database, a disk that fails.

use std::os::unix::fs::FileExt;

use graviton_core::{BlobId, Config};

use crate::mount::{Mount, fill};
use crate::scene::{Scene, noise, problem, status};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_507_and_what_is_there_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let Some(_mount) = Mount::small(directory.path().to_owned(), "16m") else { return };
    let disk = directory.path().to_owned();
    let scene = Scene::of(directory, &[]).await;
    let id = scene.put(&noise(1, 1_000_000)).await;
    let path = format!("/api/blobs/{id}");
    let put =
        async |size: usize| scene.request("POST", "/api/blobs").body(noise(2, size)).send().await.unwrap();
    problem(put(32_000_000).await, "no-space").await;
    fill(&disk);
    problem(put(1_500_000).await, "no-space").await;
    assert!(scene.get(&path).send().await.unwrap().bytes().await.unwrap() == noise(1, 1_000_000));
    std::fs::remove_file(disk.join("fill")).unwrap();
    status(&put(1_500_000).await, 201);
}

/// A mounted file, which cannot be replaced, has the name of the block to publish. That is an error of the
/// system, after which nothing more is written until the store is opened again.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_the_system_refuses_latches_the_store() {
    let scene = Scene::new().await;
    let kept = scene.put(b"kept").await;
    let name = BlobId::of(graviton_core::Algo::Blake3, b"to be refused").to_string();
    let (hex, size) = name.strip_prefix("blake3:").unwrap().split_once(':').unwrap();
    let place = scene.path(&format!("cas/blocks/blake3/{hex}-{size}"));
    std::fs::write(&place, "in the way").unwrap();
    let Some(_mount) = Mount::new(place.clone(), &["--bind", place.to_str().unwrap()]) else { return };
    let put =
        async |content: &'static str| scene.request("POST", "/api/blobs").body(content).send().await.unwrap();
    let told = problem(put("to be refused").await, "io").await;
    assert!(!told.to_string().contains(scene.path("").to_str().unwrap()), "{told}");
    problem(put("anything").await, "latched").await;
    problem(scene.get("/api/ready").send().await.unwrap(), "backend-unavailable").await;
    assert_eq!(scene.get(&format!("/api/blobs/{kept}")).send().await.unwrap().bytes().await.unwrap(), "kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_cannot_be_read_is_the_server_s_failure() {
    let scene = Scene::new().await;
    let id = scene.put(b"unreadable").await;
    let file = scene.block_file(&id, 0).await;
    std::fs::remove_file(&file).unwrap();
    // The store never follows a link out of its directory.
    std::os::unix::fs::symlink("/etc/hostname", &file).unwrap();
    problem(scene.get(&format!("/api/blobs/{id}")).send().await.unwrap(), "io").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_database_is_said_to_be_one() {
    let directory = tempfile::tempdir().unwrap();
    let store = Config::for_directory(directory.path()).open_async().await.unwrap();
    let mut last = None;
    for number in 0..300_u32 {
        last = Some(store.put(&number.to_le_bytes()[..]).await.unwrap().id);
    }
    store.close().await;
    let scene = Scene::of(directory, &[]).await;
    // Overwrites all pages except the first one and the one that describes the store, which the server has
    // read.
    let file = std::fs::File::options().write(true).open(scene.path("manifests.db")).unwrap();
    let length = file.metadata().unwrap().len();
    for page in 2..length / 4096 {
        file.write_all_at(&[0xa5; 4096], page * 4096).unwrap();
    }
    let refused = scene.get(&format!("/api/blobs/{}", last.unwrap())).send().await.unwrap();
    let told = problem(refused, "corrupt-database").await;
    assert!(!told.to_string().contains("manifests.db"), "{told}");
    problem(scene.get("/api/blobs").send().await.unwrap(), "corrupt-database").await;
}
