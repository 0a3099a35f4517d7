//! Reports as tuples, for the classes of `graviton._reports`.

use graviton_core::report::{Report, Value};
use graviton_core::{Code, Error};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::errors::exception;

/// The values of the fields that the report stores, in the order of its declaration. The class computes the
/// other fields. Ids and keys are text, times are milliseconds.
pub(crate) fn values<'py>(py: Python<'py>, report: &impl Report) -> PyResult<Bound<'py, PyTuple>> {
    let stored = report.entries().filter(|(field, _)| !field.is_computed());
    let values: Vec<_> = stored.map(|(_, value)| object(py, value)).collect::<PyResult<_>>()?;
    PyTuple::new(py, values)
}

fn object<'py>(py: Python<'py>, value: Value<'_>) -> PyResult<Bound<'py, PyAny>> {
    match value {
        Value::Count(number) | Value::Bytes(number) | Value::Size(number) => number.into_bound_py_any(py),
        Value::Seconds(number) | Value::Ratio(number) => number.into_bound_py_any(py),
        Value::Flag(flag) => flag.into_bound_py_any(py),
        Value::Id(id) => id.to_string().into_bound_py_any(py),
        Value::Ids(ids) | Value::Sample(ids) => texts(py, ids),
        Value::Keys(keys) => texts(py, keys),
        Value::Cursor(cursor) => cursor.map(ToString::to_string).into_bound_py_any(py),
        Value::Text(text) => text.into_bound_py_any(py),
        Value::Time(milliseconds) => milliseconds.into_bound_py_any(py),
        other => Err(exception(
            py,
            &Error::new(Code::Internal, format!("no Python object is known for {other:?}")),
        )),
    }
}

fn texts<'py>(py: Python<'py>, values: &[impl ToString]) -> PyResult<Bound<'py, PyAny>> {
    Ok(PyTuple::new(py, values.iter().map(ToString::to_string))?.into_any())
}
