//! `graviton upgrade`: updates the database of a store that an older version made.

use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Lines, json};

pub(crate) async fn upgrade(context: &Context) -> Result<(), Failure> {
    let upgraded = context.interrupt.or(async { Ok(context.config.upgrade_async().await?) }).await?;
    let mut lines = Lines::new(&context.interrupt);
    lines.add(&if context.json {
        json(&[("upgraded", upgraded.into())])
    } else if upgraded {
        "the store can hold packs now".to_owned()
    } else {
        "nothing to do: the store can hold packs".to_owned()
    })?;
    lines.flush()
}
