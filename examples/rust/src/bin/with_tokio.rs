//! The engine under tokio: puts files at the same time, and streams them back.
//!
//! usage: `with_tokio STORE FILE...`

use std::error::Error;

use graviton_core::Config;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().ok_or("usage: with_tokio STORE FILE...")?;
    let store = Config::for_directory(directory).open_async().await?;

    let mut puts = tokio::task::JoinSet::new();
    for path in arguments {
        let store = store.clone();
        puts.spawn(async move { store.put_file(path).await });
    }

    while let Some(put) = puts.join_next().await {
        let id = put??.id;
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
