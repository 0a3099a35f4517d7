//! The engine under tokio: puts files at the same time, and streams them back.
//!
//! usage: `with_tokio STORE FILE...`

use std::error::Error;

use graviton_core::{BlobId, Config};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("usage: with_tokio STORE FILE...")?;
    let store = Config::for_directory(directory).open_async().await?;

    let mut puts = tokio::task::JoinSet::new();
    for path in arguments {
        let store = store.clone();
        puts.spawn(async move {
            let file = tokio::fs::File::open(&path).await?;
            Ok::<BlobId, Box<dyn Error + Send + Sync>>(store.put(file).await?.id)
        });
    }

    while let Some(put) = puts.join_next().await {
        let id = put?.map_err(|error| error as Box<dyn Error>)?;
        let mut reader = store.reader(&id).await?;
        let mut blocks = 0;
        while let Some(block) = reader.next().await? {
            blocks += usize::from(!block.is_empty());
        }
        println!("{id} in {blocks} blocks");
    }
    store.close().await;
    Ok(())
}
