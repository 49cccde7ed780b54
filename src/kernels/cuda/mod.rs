//! The fast forms on a GPU: `f32`, all on one ordered stream.
//!
//! The kernels are in `kernels.cu`, compiled when the first of them is needed. Products
//! go through cuBLAS. No function here waits for the GPU, and each needs one or two
//! kernels.
//!
//! Tensors are read and written by address. This is sound because all work of a device is
//! on one stream: a kernel starts after those before it have ended, and memory is freed
//! in the same order.

#![allow(unsafe_code)]

pub(super) mod energy;
mod forms;
mod images;
mod losses;
mod products;
mod updates;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::cuda::cudarc::driver::{result, sys};
use candle_core::cuda::cudarc::driver::{
    CudaContext, CudaFunction, CudaStream, DevicePtr, LaunchConfig,
};
use candle_core::cuda::cudarc::nvrtc::{compile_ptx_with_opts, CompileOptions};
use candle_core::cuda::{CudaDType, CudaDevice};
use candle_core::op::BackpropOp;
use candle_core::{CudaStorage, DType, Device, Shape, Storage, Tensor};

pub(crate) use forms::*;
pub(crate) use images::*;
pub(crate) use losses::*;
pub(crate) use products::*;
pub(crate) use updates::*;

use super::rows::matrix_of;
use crate::error::{Error, Result};

/// The GPUs that this process has opened, by number.
static OPENED: Mutex<BTreeMap<usize, Device>> = Mutex::new(BTreeMap::new());

/// The GPU with this number, with one ordered stream for all runs of the process. Its
/// kernels are compiled once.
pub(crate) fn open(number: usize) -> Result<Device> {
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(device) = opened.get(&number) {
        return Ok(device.clone());
    }
    let count = CudaContext::device_count().map_err(|error| Error::Device {
        name: format!("cuda:{number}"),
        problem: format!("CUDA does not start ({error}); is the driver of the GPU installed?"),
    })?;
    if number >= count.max(0) as usize {
        let problem = match count {
            0 => "there is no GPU with CUDA here".into(),
            1 => "there is one GPU here: cuda:0".into(),
            _ => format!("there are {count} GPUs here: cuda:0 to cuda:{}", count - 1),
        };
        let name = format!("cuda:{number}");
        return Err(Error::Device { name, problem });
    }
    let device = Device::new_cuda_with_stream(number)?;
    let gpu = device.as_cuda_device()?;
    // SAFETY: there is one stream, so no tensor is used on another one.
    unsafe { gpu.disable_event_tracking() };
    keep_memory(gpu)?;
    opened.insert(number, device.clone());
    Ok(device)
}

/// Lets the process keep freed memory. Otherwise the driver takes it back whenever
/// somebody waits for the GPU, and the next step has to ask for all of it again.
fn keep_memory(gpu: &CudaDevice) -> Result<()> {
    let stream = gpu.cuda_stream();
    let context = stream.context();
    if !context.has_async_alloc() {
        return Ok(());
    }
    let mut all = u64::MAX;
    // SAFETY: the pool is that of this device, and the attribute is a number of 64 bits.
    unsafe {
        let pool = result::device::get_default_mem_pool(context.cu_device()).map_err(failed)?;
        sys::cuMemPoolSetAttribute(
            pool,
            sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
            (&raw mut all).cast(),
        )
        .result()
        .map_err(failed)
    }
}

/// The free memory of a GPU in bytes.
pub(crate) fn free(device: &Device) -> Result<u64> {
    let stream = device.as_cuda_device()?.cuda_stream();
    let (free, _) = stream.context().mem_get_info().map_err(failed)?;
    Ok(free as u64)
}

/// Whether the fast form can be used.
pub(crate) fn is_fast(x: &Tensor) -> bool {
    x.device().is_cuda() && x.dtype() == super::FAST && x.rank() >= 1
}

const SOURCE: &str = include_str!("kernels.cu");

/// The kernels of `kernels.cu`.
const NAMES: [&str; 35] = [
    "adam",
    "add_to",
    "affine",
    "blend",
    "cells",
    "column_sums",
    "contrast",
    "cross_entropy",
    "cross_entropy_loss",
    "dropout",
    "fields",
    "from_cells",
    "gate",
    "images",
    "log_softmax",
    "moments",
    "moments_gradient",
    "peer",
    "plane_sums",
    "pool",
    "row_factors",
    "row_squares",
    "scale",
    "scale_rows",
    "scatter",
    "sgd",
    "sgd_columns",
    "spread",
    "standardise",
    "standardised_relu",
    "sum_views",
    "to_bf16",
    "total",
    "unit_rows",
    "with_wrong",
];

/// A device with its stream and its kernels.
struct Gpu {
    device: CudaDevice,
    stream: Arc<CudaStream>,
    functions: HashMap<&'static str, CudaFunction>,
}

static GPUS: Mutex<Vec<Arc<Gpu>>> = Mutex::new(Vec::new());

impl Gpu {
    /// The device of a tensor; its kernels are compiled at the first call.
    fn of(device: &Device) -> Result<Arc<Self>> {
        let device = device.as_cuda_device()?;
        let mut known = GPUS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gpu) = known.iter().find(|gpu| gpu.device.id() == device.id()) {
            return Ok(gpu.clone());
        }
        let gpu = Arc::new(Self::compile(device)?);
        known.push(gpu.clone());
        Ok(gpu)
    }

    fn compile(device: &CudaDevice) -> Result<Self> {
        let stream = device.cuda_stream();
        let context = stream.context();
        let (major, minor) = context.compute_capability().map_err(failed)?;
        let options = CompileOptions {
            options: vec![format!("--gpu-architecture=compute_{major}{minor}")],
            ..CompileOptions::default()
        };
        let program = compile_ptx_with_opts(SOURCE, options).map_err(failed)?;
        let module = context.load_module(program).map_err(failed)?;
        let load = |name: &'static str| Ok((name, module.load_function(name).map_err(failed)?));
        let functions = NAMES.into_iter().map(load);
        Ok(Self {
            device: device.clone(),
            functions: functions.collect::<Result<_>>()?,
            stream,
        })
    }

    fn function(&self, name: &str) -> Result<&CudaFunction> {
        let found = self.functions.get(name);
        found.ok_or_else(|| Error::usage("GPU kernel", format!("there is no kernel {name}")))
    }

    /// A tensor whose numbers will be written by a kernel.
    fn empty<T: CudaDType + candle_core::cuda::cudarc::driver::DeviceRepr>(
        &self,
        shape: impl Into<Shape>,
    ) -> Result<Tensor> {
        let shape = shape.into();
        // SAFETY: a kernel writes every number before another one reads it.
        let memory = unsafe { self.device.alloc::<T>(shape.elem_count())? };
        let storage = CudaStorage::wrap_cuda_slice(memory, self.device.clone());
        let (storage, op) = (Storage::Cuda(storage), BackpropOp::none());
        Ok(Tensor::from_storage(storage, shape, op, false))
    }

    /// The address of the first number of a tensor of `f32`.
    fn address(&self, x: &Tensor) -> Result<u64> {
        self.address_of(x, DType::F32)
    }

    /// The address of the first element of a tensor of this type, which is how a kernel
    /// reads its bytes.
    fn address_of(&self, x: &Tensor, dtype: DType) -> Result<u64> {
        if x.dtype() != dtype {
            let problem = format!("expected a tensor of {dtype:?}, found {:?}", x.dtype());
            return Err(Error::usage("GPU kernel", problem));
        }
        let (storage, layout) = x.storage_and_layout();
        let Storage::Cuda(storage) = &*storage else {
            return Err(not_here(x));
        };
        let stream = &self.stream;
        let start = match dtype {
            DType::F32 => storage.as_cuda_slice::<f32>()?.device_ptr(stream).0,
            DType::F64 => storage.as_cuda_slice::<f64>()?.device_ptr(stream).0,
            DType::U32 => storage.as_cuda_slice::<u32>()?.device_ptr(stream).0,
            DType::U8 => storage.as_cuda_slice::<u8>()?.device_ptr(stream).0,
            _ => return Err(not_here(x)),
        };
        Ok(start + (layout.start_offset() * dtype.size_in_bytes()) as u64)
    }

    /// The address of a tensor, or 0.
    fn address_or_null(&self, x: Option<&Tensor>) -> Result<u64> {
        x.map_or(Ok(0), |x| self.address(x))
    }
}

/// Rows on a GPU: row `r` begins `r·stride` numbers after `address`.
struct Rows {
    address: u64,
    rows: usize,
    width: usize,
    stride: usize,
    /// Keeps a copy alive, if one was made.
    _copy: Tensor,
}

impl Gpu {
    /// The rows of `x`, `(B, …)` read as `(B, D)`. Copies only if the columns are not
    /// contiguous, or rows overlap.
    fn rows(&self, x: &Tensor) -> Result<Rows> {
        let mut matrix = matrix_of(x)?;
        let (rows, width) = matrix.dims2()?;
        // cuBLAS takes no rows that overlap, such as those of a vector that is repeated.
        if rows > 1 && matrix.stride()[0] < width {
            matrix = matrix.contiguous()?;
        }
        // The stride of a single row may be anything.
        let stride = if rows > 1 { matrix.stride()[0] } else { width };
        Ok(Rows {
            address: self.address(&matrix)?,
            rows,
            width,
            stride,
            _copy: matrix,
        })
    }
}

/// The number of threads of a block for work that is divided by elements or columns.
const THREADS: u32 = 256;

/// Blocks for a pass over elements.
fn elements(count: usize) -> LaunchConfig {
    blocks(count.div_ceil(THREADS as usize).max(1), 1, THREADS)
}

/// A block for each row and 1024 columns.
fn tiles(rows: usize, width: usize) -> LaunchConfig {
    blocks(rows.max(1), width.div_ceil(1024).max(1), THREADS)
}

fn blocks(x: usize, y: usize, threads: u32) -> LaunchConfig {
    LaunchConfig {
        grid_dim: (x as u32, y as u32, 1),
        block_dim: (threads, 1, 1),
        shared_mem_bytes: 0,
    }
}

/// Starts the kernel with this name and these arguments.
macro_rules! launch {
    ($gpu:expr, $name:ident, $config:expr; $($argument:expr),+ $(,)?) => {{
        use candle_core::cuda::cudarc::driver::PushKernelArg as _;
        let mut builder = $gpu.stream.launch_builder($gpu.function(stringify!($name))?);
        $(
            let argument = $argument;
            builder.arg(&argument);
        )+
        // SAFETY: the arguments are those of the kernel, and the addresses are those of
        // tensors of the sizes given; see the top of this file.
        unsafe { builder.launch($config) }.map_err($crate::kernels::cuda::failed)?;
    }};
}
use launch;

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    candle_core::Error::wrap(error).into()
}

fn not_here(x: &Tensor) -> Error {
    let problem = format!(
        "expected numbers on a GPU, found {:?} on {:?}",
        x.dtype(),
        x.device().location()
    );
    Error::usage("fast path", problem)
}
