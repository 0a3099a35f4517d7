//! The interpreter that a program runs in. One process may have several (`Py_NewInterpreter`, as mod_wsgi
//! does), and this module keeps classes and callbacks of Python for the process: those of one interpreter
//! must not be met in another. So only the main one may import it.

#![allow(unsafe_code)]

use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;

/// Raises `ImportError` in any interpreter but the main one.
#[pyfunction]
pub(crate) fn check_interpreter(_py: Python<'_>) -> PyResult<()> {
    // SAFETY: this thread holds the GIL, as `_py` proves, so that it has an interpreter, which lives.
    let number = unsafe { pyo3::ffi::PyInterpreterState_GetID(pyo3::ffi::PyInterpreterState_Get()) };
    if number == 0 {
        return Ok(());
    }
    Err(PyImportError::new_err(
        "graviton works in the main interpreter alone, and this is another one: run the program in a process of its own \
         (for mod_wsgi: WSGIApplicationGroup %{GLOBAL})",
    ))
}
