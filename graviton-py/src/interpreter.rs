//! The interpreter that a program runs in. One process may have several (`Py_NewInterpreter`, as mod_wsgi
//! does). This module keeps Python classes and callbacks per process, and those of one interpreter must not
//! appear in another. So only the main interpreter may import it.

#![allow(unsafe_code)]

use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;

/// Raises `ImportError` in every interpreter except the main one.
#[pyfunction]
pub(crate) fn check_interpreter(_py: Python<'_>) -> PyResult<()> {
    // SAFETY: `_py` proves that this thread holds the GIL, so it has a live interpreter.
    let number = unsafe { pyo3::ffi::PyInterpreterState_GetID(pyo3::ffi::PyInterpreterState_Get()) };
    if number == 0 {
        return Ok(());
    }
    Err(PyImportError::new_err(
        "graviton works in the main interpreter alone, and this is another one: run the program in a process of its own \
         (for mod_wsgi: WSGIApplicationGroup %{GLOBAL})",
    ))
}
