//! Matrix products, and linear maps of parts.

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::cuda::cudarc::cublas::{result, sys};
use candle_core::cuda::cudarc::driver::DeviceRepr;
use candle_core::cuda::{gemm_reduced_precision_f32, set_gemm_reduced_precision_f32};
use candle_core::{DType, Tensor};

use super::{failed, launch, tiles, Gpu, Rows};
use crate::error::Result;
use crate::kernels::meter;
use crate::kernels::rounding::Rounding;

/// Whether the numbers of our own products are rounded to bfloat16.
static TO_BF16: AtomicBool = AtomicBool::new(false);

/// Sets how products round. Those of candle's own operations are never rounded to
/// bfloat16, but to TensorFloat-32.
pub(crate) fn round_products(to: Rounding) {
    set_gemm_reduced_precision_f32(to != Rounding::None);
    TO_BF16.store(to == Rounding::Bf16, Ordering::Relaxed);
}

/// The distance of rows of bfloat16 is a multiple of it: cuBLAS reads 16 bytes at a time.
const TOGETHER: usize = 8;

impl Gpu {
    /// The same rows, rounded to bfloat16.
    fn rounded(&self, x: &Rows) -> Result<Rows> {
        let stride = x.width.next_multiple_of(TOGETHER);
        let copy = self.empty::<u8>((x.rows, stride * 2))?;
        let address = self.address_of(&copy, DType::U8)?;
        launch!(self, to_bf16, tiles(x.rows, x.width);
            x.address, address, x.width as u32, x.stride as u64, stride as u64);
        Ok(Rows {
            address,
            stride,
            _copy: copy,
            ..*x
        })
    }

    /// Computes `c ← keep·c + factor·a·b`. `a` and `b` are stored as they are, or
    /// transposed.
    pub(super) fn multiply(
        &self,
        (a, a_is_transposed): (&Rows, bool),
        (b, b_is_transposed): (&Rows, bool),
        (c, stride): (u64, usize),
        keep: f32,
        factor: f32,
    ) -> Result<()> {
        let (rows, inner) = match a_is_transposed {
            true => (a.width, a.rows),
            false => (a.rows, a.width),
        };
        let columns = if b_is_transposed { b.rows } else { b.width };
        if rows == 0 || columns == 0 {
            return Ok(());
        }
        meter::note((rows * inner * columns) as u64);
        // cuBLAS stores matrices column by column, so it computes cᵀ = bᵀ·aᵀ.
        let form = |transposed: bool| match transposed {
            true => sys::cublasOperation_t::CUBLAS_OP_T,
            false => sys::cublasOperation_t::CUBLAS_OP_N,
        };
        let number = sys::cudaDataType_t::CUDA_R_32F;
        let copies = match TO_BF16.load(Ordering::Relaxed) {
            true => Some((self.rounded(a)?, self.rounded(b)?)),
            false => None,
        };
        let (a, b, factors) = match &copies {
            Some((a, b)) => (a, b, sys::cudaDataType_t::CUDA_R_16BF),
            None => (a, b, number),
        };
        let compute = match gemm_reduced_precision_f32() && copies.is_none() {
            true => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
            false => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
        };
        let blas = self.device.cublas_handle();
        // SAFETY: the addresses are those of matrices of these sizes; see the top of
        // `mod.rs`.
        unsafe {
            result::gemm_ex(
                *blas.handle(),
                form(b_is_transposed),
                form(a_is_transposed),
                columns as i32,
                rows as i32,
                inner as i32,
                (&raw const factor).cast::<c_void>(),
                b.address as *const c_void,
                factors,
                b.stride.max(1) as i32,
                a.address as *const c_void,
                factors,
                a.stride.max(1) as i32,
                (&raw const keep).cast::<c_void>(),
                c as *mut c_void,
                number,
                stride as i32,
                compute,
                sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        }
        .map_err(failed)
    }
}

/// `a·b`: `(R, D)` and `(D, N)` to `(R, N)`.
pub(crate) fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let gpu = Gpu::of(a.device())?;
    let (a, b) = (gpu.rows(a)?, gpu.rows(b)?);
    let out = gpu.empty::<f32>((a.rows, b.width))?;
    gpu.multiply(
        (&a, false),
        (&b, false),
        (gpu.address(&out)?, b.width),
        0.,
        1.,
    )?;
    Ok(out)
}

/// `a·bᵀ`: `(R, N)` and `(D, N)` to `(R, D)`.
pub(crate) fn matmul_transposed(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let gpu = Gpu::of(a.device())?;
    let (a, b) = (gpu.rows(a)?, gpu.rows(b)?);
    let out = gpu.empty::<f32>((a.rows, b.rows))?;
    gpu.multiply(
        (&a, false),
        (&b, true),
        (gpu.address(&out)?, b.rows),
        0.,
        1.,
    )?;
    Ok(out)
}

/// Computes `sum ← keep·sum + factor·valuesᵀ·delta` in place, in the rows of `sum` from
/// `first` on.
pub(crate) fn add_product(
    (sum, first): (&Tensor, usize),
    values: &Tensor,
    delta: &Tensor,
    keep: f64,
    factor: f64,
) -> Result<()> {
    let gpu = Gpu::of(sum.device())?;
    let (values, delta, units) = (gpu.rows(values)?, gpu.rows(delta)?, sum.dim(1)?);
    let place = gpu.address(sum)? + (first * units * size_of::<f32>()) as u64;
    gpu.multiply(
        (&values, true),
        (&delta, false),
        (place, units),
        keep as f32,
        factor as f32,
    )
}

/// What a part adds to each row of a linear map's output. The rows of a part are
/// repeated.
pub(crate) struct Term<'a> {
    pub kind: Kind<'a>,
    /// Factors of the rows of the output.
    pub scale: Option<&'a Tensor>,
}

pub(crate) enum Kind<'a> {
    /// Rows of a product, `(R, N)`.
    Product(Tensor),
    /// Rows of the weight from `first` on, picked by the indices of one-hot slots,
    /// `(R, K)`.
    Picked {
        index: &'a Tensor,
        classes: usize,
        first: usize,
        strength: f64,
    },
}

/// Terms in one launch.
const TERMS: usize = 8;

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RawTerm {
    values: u64,
    index: u64,
    scale: u64,
    rows: u32,
    slots: u32,
    classes: u32,
    strength: f32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RawTerms {
    term: [RawTerm; TERMS],
    count: u32,
}

// SAFETY: plain numbers, laid out as in `kernels.cu`.
unsafe impl DeviceRepr for RawTerms {}

/// Bias and ReLU of a linear map.
#[derive(Clone, Copy)]
pub(crate) struct Finish<'a> {
    pub bias: Option<&'a Tensor>,
    pub relu: bool,
}

/// `x·W`, times the factors of the rows, finished: `(R, D)` and `(D, N)` to `(R, N)`.
pub(crate) fn single(
    x: &Tensor,
    scale: Option<&Tensor>,
    weight: &Tensor,
    finish: Finish<'_>,
) -> Result<Tensor> {
    let out = product(x, weight)?;
    if scale.is_some() || finish.bias.is_some() || finish.relu {
        let kind = Kind::Product(out.clone());
        add_up(&[Term { kind, scale }], weight, &out, finish)?;
    }
    Ok(out)
}

/// The sum of the terms for each of `rows` rows, finished: `(R, N)`.
pub(crate) fn affine(
    terms: &[Term<'_>],
    weight: &Tensor,
    rows: usize,
    finish: Finish<'_>,
) -> Result<Tensor> {
    let out = Gpu::of(weight.device())?.empty::<f32>((rows, weight.dim(1)?))?;
    add_up(terms, weight, &out, finish)?;
    Ok(out)
}

/// Writes the sum of the terms to `out`, which may be one of them.
fn add_up(terms: &[Term<'_>], weight: &Tensor, out: &Tensor, finish: Finish<'_>) -> Result<()> {
    let gpu = Gpu::of(out.device())?;
    let (rows, units) = out.dims2()?;
    let pieces = terms.len().div_ceil(TERMS).max(1);
    for piece in 0..pieces {
        let terms = terms.iter().skip(piece * TERMS).take(TERMS);
        let mut raw = RawTerms::default();
        let mut copies = Vec::new();
        for (to, term) in raw.term.iter_mut().zip(terms) {
            to.scale = gpu.address_or_null(term.scale)?;
            match &term.kind {
                Kind::Product(product) => {
                    to.values = gpu.address(product)?;
                    to.rows = product.dim(0)? as u32;
                }
                Kind::Picked {
                    index,
                    classes,
                    first,
                    strength,
                } => {
                    let index = index.contiguous()?;
                    let place = first * units * size_of::<f32>();
                    to.values = gpu.address(weight)? + place as u64;
                    to.index = gpu.address_of(&index, DType::U32)?;
                    to.rows = index.dim(0)? as u32;
                    to.slots = index.dim(1)? as u32;
                    to.classes = *classes as u32;
                    to.strength = *strength as f32;
                    copies.push(index);
                }
            }
            raw.count += 1;
        }
        let is_last = piece + 1 == pieces;
        let bias = gpu.address_or_null(finish.bias.filter(|_| is_last))?;
        launch!(gpu, affine, tiles(rows, units);
            raw, gpu.address(out)?, bias, units as u32, u32::from(finish.relu && is_last),
            u32::from(piece > 0));
    }
    Ok(())
}
