//! Errors of the engine as exceptions of the package, which defines a class for each code.

use std::error::Error as _;
use std::io;
use std::path::Path;

use graviton_core::{Code, Error};
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// Deeper causes help nobody.
const DEEPEST: usize = 8;

/// For every code: its name, its class, and whether a retry may help.
pub(crate) fn codes() -> Vec<(&'static str, &'static str, bool)> {
    Code::all().map(|code| (code.name(), code.python_class(), code.is_retryable())).collect()
}

/// For every code: the exit code of a command that fails with it.
pub(crate) fn exit_codes() -> Vec<(&'static str, u8)> {
    Code::all().map(|code| (code.name(), code.exit_code())).collect()
}

/// The exception to raise for an error, with its causes.
pub(crate) fn exception(py: Python<'_>, error: &Error) -> PyErr {
    built(py, error, 0).unwrap_or_else(|failed| failed)
}

fn built(py: Python<'_>, error: &Error, depth: usize) -> PyResult<PyErr> {
    static MAKE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let make = MAKE.import(py, "graviton._errors", "make")?;
    let path = error.path().map(Path::as_os_str);
    let facts = (error.code().name(), error.to_string(), error.advice(), error.errno(), path);
    let exception = PyErr::from_value(make.call1(facts)?);
    exception.set_cause(py, error.source().and_then(|source| cause(py, source, depth + 1)));
    Ok(exception)
}

fn cause(py: Python<'_>, source: &(dyn std::error::Error + 'static), depth: usize) -> Option<PyErr> {
    if depth > DEEPEST {
        return None;
    }
    if let Some(error) = source.downcast_ref::<Error>() {
        return built(py, error, depth).ok();
    }
    let exception = match source.downcast_ref::<io::Error>() {
        Some(error) => match (error.raw_os_error(), error.get_ref()) {
            (Some(number), _) => {
                let strerror = py.import("os").and_then(|os| os.call_method1("strerror", (number,)));
                PyOSError::new_err((number, strerror.ok()?.unbind()))
            }
            (None, Some(inner)) => return cause(py, inner, depth + 1),
            (None, None) => PyOSError::new_err(error.to_string()),
        },
        None => PyRuntimeError::new_err(source.to_string()),
    };
    exception.set_cause(py, source.source().and_then(|source| cause(py, source, depth + 1)));
    Some(exception)
}
