//! Text of Python objects. It may contain half of a surrogate pair, for example from a file name, which no
//! Unicode text contains.

use std::ops::Deref;

use pyo3::exceptions::PyUnicodeEncodeError;
use pyo3::prelude::*;
use pyo3::types::PyString;

/// Text that the engine parses. A character that is not Unicode is replaced by one that no valid text
/// contains, so the text is refused like any other invalid text, with the same message and exception.
pub(crate) struct Text(String);

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl FromPyObject<'_, '_> for Text {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Text> {
        match object.extract::<String>() {
            Err(raised) if raised.is_instance_of::<PyUnicodeEncodeError>(object.py()) => {
                Ok(Text(object.cast::<PyString>()?.to_string_lossy().into_owned()))
            }
            text => Ok(Text(text?)),
        }
    }
}
