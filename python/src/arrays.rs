//! Arrays of Python as tensors, and back.

use onward::candle_core::{self, CpuStorage, DType, Device, Storage, Tensor};
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::PyByteArray;

use crate::raised;

/// Numbers in the order of the processor, their shape, and their type in NumPy.
pub type Array = (Py<PyByteArray>, Vec<usize>, &'static str);

/// A tensor for Python; numbers of other types than `f64` and `u32` in 32 bits.
pub fn to_python(py: Python<'_>, tensor: &Tensor) -> PyResult<Array> {
    let on_cpu = || {
        let tensor = tensor.to_device(&Device::Cpu)?;
        match tensor.dtype() {
            DType::F32 | DType::F64 | DType::U32 => tensor.contiguous(),
            _ => tensor.to_dtype(DType::F32)?.contiguous(),
        }
    };
    let tensor = on_cpu().map_err(failed)?;
    let (storage, layout) = tensor.storage_and_layout();
    let (start, end) = layout.contiguous_offsets().unwrap_or_default();
    let (bytes, word): (&[u8], _) = match &*storage {
        Storage::Cpu(CpuStorage::F64(values)) => (bytemuck::cast_slice(&values[start..end]), "f8"),
        Storage::Cpu(CpuStorage::U32(values)) => (bytemuck::cast_slice(&values[start..end]), "u4"),
        Storage::Cpu(CpuStorage::F32(values)) => (bytemuck::cast_slice(&values[start..end]), "f4"),
        _ => unreachable!("the tensor is on the CPU and has one of three types"),
    };
    let array = PyByteArray::new(py, bytes).unbind();
    Ok((array, tensor.dims().to_vec(), word))
}

/// A contiguous array of `float32` or `float64` as a tensor on the CPU.
pub fn to_tensor(array: &Bound<'_, PyAny>) -> PyResult<Tensor> {
    let py = array.py();
    let tensor = match PyBuffer::<f32>::get(array) {
        Ok(buffer) => Tensor::from_vec(buffer.to_vec(py)?, buffer.shape(), &Device::Cpu),
        Err(_) => {
            let buffer = PyBuffer::<f64>::get(array)?;
            Tensor::from_vec(buffer.to_vec(py)?, buffer.shape(), &Device::Cpu)
        }
    };
    tensor.map_err(failed)
}

fn failed(error: candle_core::Error) -> PyErr {
    raised(error.into())
}
