//! Data sets from arrays.

use std::sync::Arc;

use onward::data::images::Images;
use onward::data::numbers::Numbers;
use onward::data::{Content, DataSet, ExampleSpec, Examples, Framing};
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;

use crate::raised;

/// A data set in memory.
#[pyclass(frozen, module = "onward")]
pub struct Data(pub DataSet);

/// Examples and labels: contiguous arrays of `u8` or `f32`, and of `u32`.
type Part<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>);

fn numbers<T: pyo3::buffer::Element>(array: &Bound<'_, PyAny>) -> PyResult<Vec<T>> {
    PyBuffer::<T>::get(array)?.to_vec(array.py())
}

/// The images of bytes, or the numbers, of a part.
fn examples(part: &Part<'_>, shape: &[usize], are_bytes: bool) -> PyResult<Arc<dyn Examples>> {
    let labels = numbers::<u32>(&part.1)?;
    Ok(match shape {
        &[channels, height, width] if are_bytes => {
            let labels = labels.into_iter().map(|label| label as u8).collect();
            let shape = [channels, height, width];
            Arc::new(Images::new(numbers::<u8>(&part.0)?, labels, shape).map_err(raised)?)
        }
        _ => Arc::new(Numbers::new(numbers::<f32>(&part.0)?, labels, shape).map_err(raised)?),
    })
}

#[pymethods]
impl Data {
    #[new]
    fn new(
        shape: Vec<usize>,
        classes: Vec<String>,
        are_bytes: bool,
        train: Part<'_>,
        validation: Part<'_>,
        test: Part<'_>,
    ) -> PyResult<Self> {
        let part = |part: &Part<'_>| examples(part, &shape, are_bytes);
        Ok(Self(DataSet {
            train: part(&train)?,
            validation: part(&validation)?,
            test: part(&test)?,
            spec: ExampleSpec::new(&shape, classes, Content::Picture(Framing::Whole)),
            text: None,
        }))
    }
}
