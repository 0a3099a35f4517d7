//! `graviton._graviton`: the engine under the Python package `graviton`.
//!
//! The package has the names, types and documentation that programs see; this module has the parts that need
//! the engine. Values cross as plain objects (ids are text, reports are tuples), and the package gives them
//! names.
//!
//! ```text
//! settings -> store -> reader, writer, files (many at once), upkeep
//!                ├── aio: answers for asyncio -> aio_store, aio_files
//!                └── call: without the GIL, ended by signals;  turn: one thread at a time;
//!                    buffer;  text;  errors
//!                      └── lent: Python objects that the engine's threads hold
//! ```
//! Rules: no call holds the GIL while it waits, for the engine or for another thread's turn. No Rust
//! reference points to memory that Python code may change meanwhile. An error leaves as the exception of its
//! code, and an exception of Python code leaves unchanged.

#![deny(unsafe_code)]
#![allow(clippy::needless_pass_by_value, reason = "arguments of Python functions arrive as values")]

mod aio;
mod aio_files;
mod aio_store;
mod buffer;
mod call;
mod errors;
mod files;
mod interpreter;
mod lent;
mod reader;
mod reports;
mod settings;
mod store;
mod text;
mod turn;
mod upkeep;
mod writer;

/// The engine of the package `graviton`. Programs import that package.
#[pyo3::pymodule]
mod _graviton {
    use pyo3::prelude::*;
    use pyo3::types::PyModule;

    #[pymodule_export]
    use crate::aio::{AnswerQueue, Task};
    #[pymodule_export]
    use crate::aio_files::{AioReader, AioWriter};
    #[pymodule_export]
    use crate::buffer::{fill_at, piece_of};
    #[pymodule_export]
    use crate::interpreter::check_interpreter;
    #[pymodule_export]
    use crate::reader::Reader;
    #[pymodule_export]
    use crate::settings::{blob_id, blob_id_of, environment, secrets};
    #[pymodule_export]
    use crate::store::Store;
    #[pymodule_export]
    use crate::writer::Writer;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        check_interpreter(module.py())?;
        module.add("SETTINGS", crate::settings::all())?;
        module.add("CODES", crate::errors::codes())?;
        module.add("EXIT_CODES", crate::errors::exit_codes())?;
        module.add("VERSION", env!("CARGO_PKG_VERSION"))?;
        crate::lent::at_forks()
    }
}
