//! Tensors as rows in memory: `f32` on the CPU, rows divided among threads.

use std::cell::Cell;
use std::ops::Range;

use candle_core::{CpuStorage, InplaceOp1, Layout, Storage, Tensor};
use rayon::prelude::*;

use super::wide::Loop;
use crate::error::{Error, Result};

/// The number of elements below which waking another thread does not pay off.
pub(super) const GRAIN: usize = 1 << 15;

pub(crate) fn is_fast(x: &Tensor) -> bool {
    x.device().is_cpu() && x.dtype() == super::FAST && x.rank() >= 1
}

/// Rows in memory: row `r` is `data[r·stride..][..width]`.
pub(crate) struct Rows<'a> {
    pub data: &'a [f32],
    pub rows: usize,
    pub width: usize,
    pub stride: usize,
}

impl<'a> Rows<'a> {
    pub fn row(&self, row: usize) -> &'a [f32] {
        &self.data[row * self.stride..][..self.width]
    }
}

/// `x`, `(B, …)`, as a matrix `(B, D)`; a number in each row is a column.
pub(super) fn flat(x: &Tensor) -> Result<Tensor> {
    Ok(match x.rank() {
        1 => x.unsqueeze(1)?,
        2 => x.clone(),
        _ => x.flatten_from(1)?,
    })
}

/// The same with contiguous columns. Copies only if they are not.
pub(super) fn matrix_of(x: &Tensor) -> Result<Tensor> {
    let matrix = flat(x)?;
    Ok(match matrix.stride()[1] == 1 || matrix.dim(1)? == 1 {
        true => matrix,
        false => matrix.contiguous()?,
    })
}

/// Calls `f` with the rows of `x`, `(B, …)` read as `(B, D)`. Copies only if the columns
/// are not contiguous.
pub(crate) fn with_rows<T>(x: &Tensor, f: impl FnOnce(Rows<'_>) -> T) -> Result<T> {
    let matrix = matrix_of(x)?;
    let (rows, width) = matrix.dims2()?;
    let (storage, layout) = matrix.storage_and_layout();
    let Storage::Cpu(CpuStorage::F32(data)) = &*storage else {
        return Err(not_fast(x));
    };
    Ok(f(Rows {
        data: &data[layout.start_offset()..],
        rows,
        width,
        stride: layout.stride()[0],
    }))
}

/// Calls `f` with the values of a tensor; copies only if it is not contiguous.
pub(crate) fn with_values<T>(x: &Tensor, f: impl FnOnce(&[f32]) -> T) -> Result<T> {
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cpu(CpuStorage::F32(data)) = &*storage else {
        return Err(not_fast(&x));
    };
    Ok(f(&data[layout.start_offset()..][..x.elem_count()]))
}

/// The place of a tensor's values in memory: the same for all views of one tensor.
pub(crate) fn memory_of(x: &Tensor) -> usize {
    std::ptr::from_ref::<Storage>(&x.storage_and_layout().0).addr()
}

/// Calls `f` with the values of a contiguous tensor, to change them in place. `f` must
/// not read another view of the same tensor: it would wait for ever.
pub(crate) fn with_values_mut<T>(x: &Tensor, f: impl FnOnce(&mut [f32]) -> T) -> Result<T> {
    with_memory(x, |values, place| f(&mut values[place]))
}

/// Exchanges the values of two tensors of one shape. Nothing is copied where each has all
/// of its memory for itself.
pub(crate) fn swap_values(a: &Tensor, b: &Tensor) -> Result<()> {
    with_memory(a, |a, of_a| {
        with_memory(b, |b, of_b| {
            match of_a.len() == a.len() && of_b.len() == b.len() {
                true => std::mem::swap(a, b),
                false => a[of_a].swap_with_slice(&mut b[of_b]),
            }
        })
    })?
}

/// Calls `f` with the memory of a contiguous tensor, and the place of its values there.
fn with_memory<T>(x: &Tensor, f: impl FnOnce(&mut Vec<f32>, Range<usize>) -> T) -> Result<T> {
    let change = Change {
        f: Cell::new(Some(f)),
        done: Cell::new(None),
    };
    x.inplace_op1(&change)?;
    change.done.into_inner().ok_or_else(|| not_fast(x))
}

struct Change<F, T> {
    f: Cell<Option<F>>,
    done: Cell<Option<T>>,
}

impl<T, F: FnOnce(&mut Vec<f32>, Range<usize>) -> T> InplaceOp1 for Change<F, T> {
    fn name(&self) -> &'static str {
        "change in place"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        if let (CpuStorage::F32(values), Some((start, end)), Some(f)) =
            (storage, layout.contiguous_offsets(), self.f.take())
        {
            self.done.set(Some(f(values, start..end)));
        }
        Ok(())
    }
}

fn not_fast(x: &Tensor) -> Error {
    Error::usage(
        "fast path",
        format!(
            "expected contiguous f32 on the CPU, found {:?} on {:?}",
            x.dtype(),
            x.device().location()
        ),
    )
}

/// Calls `f(row index, row)` for all rows, in parallel if there are many elements.
pub(crate) fn for_rows(out: &mut [f32], width: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    for_long_rows(out, width, width, f);
}

/// As [`for_rows`], where each row takes as long as a pass over `work` elements.
pub(super) fn for_long_rows(
    out: &mut [f32],
    width: usize,
    work: usize,
    f: impl Fn(usize, &mut [f32]) + Sync,
) {
    each_piece(out, width, work, |first, out| {
        let f = &f;
        EachRow {
            out,
            width,
            first,
            f,
        }
        .wide();
    });
}

/// Calls `f(first row, rows)` for pieces of whole rows, in parallel if there is much to
/// do; a row takes as long as a pass over `work` elements.
pub(super) fn each_piece<T: Send>(
    out: &mut [T],
    width: usize,
    work: usize,
    f: impl Fn(usize, &mut [T]) + Sync,
) {
    if width == 0 {
        return;
    }
    if out.len() / width * work < 2 * GRAIN {
        return f(0, out);
    }
    let rows = GRAIN.div_ceil(work);
    out.par_chunks_mut(rows * width)
        .enumerate()
        .for_each(|(piece, out)| f(piece * rows, out));
}

/// Calls `f` for each row, the first of which is row `first`.
pub(super) struct EachRow<'a, F> {
    pub out: &'a mut [f32],
    pub width: usize,
    pub first: usize,
    pub f: &'a F,
}

impl<F: Fn(usize, &mut [f32])> Loop for EachRow<'_, F> {
    #[inline(always)]
    fn run(self) {
        // Not `for_each`, which is not always inlined.
        for (row, out) in self.out.chunks_exact_mut(self.width).enumerate() {
            (self.f)(self.first + row, out);
        }
    }
}
