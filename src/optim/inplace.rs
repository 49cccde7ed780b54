//! Updates in place: `f32` on the CPU, through candle's in-place operations.

use candle_core::{CpuStorage, InplaceOp2, InplaceOp3, Layout, Tensor, Var};
use rayon::prelude::*;

use crate::error::Result;
use crate::ops::gemm::{product, Matrix};

/// Elements that one thread takes at a time.
const GRAIN: usize = 1 << 16;

type Fwd<T> = candle_core::Result<T>;

fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Fwd<&'a [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("an update needs contiguous tensors")
    };
    Ok(&storage.as_slice::<f32>()?[start..end])
}

fn values_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Fwd<&'a mut [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        candle_core::bail!("an update in place needs a contiguous tensor")
    };
    match storage {
        CpuStorage::F32(values) => Ok(&mut values[start..end]),
        _ => candle_core::bail!("an update in place is made for f32"),
    }
}

fn rows<'a>(storage: &'a CpuStorage, layout: &Layout) -> Fwd<Matrix<'a>> {
    let (rows, columns) = layout.shape().dims2()?;
    let data = &storage.as_slice::<f32>()?[layout.start_offset()..];
    Ok(Matrix { data, rows, columns, row: layout.stride()[0], column: layout.stride()[1] })
}

fn same_length(a: &[f32], b: &[f32]) -> Fwd<()> {
    if a.len() != b.len() {
        candle_core::bail!("an update of {} elements by {}", a.len(), b.len())
    }
    Ok(())
}

macro_rules! operation2 {
    ($name:ident { $($field:ident),* }, |$self:ident, $a:ident, $b:ident| $body:block) => {
        struct $name { $($field: f32),* }

        impl InplaceOp2 for $name {
            fn name(&self) -> &'static str {
                stringify!($name)
            }

            fn cpu_fwd(&self, s1: &mut CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Fwd<()> {
                let ($self, $a, $b) = (self, values_mut(s1, l1)?, values(s2, l2)?);
                same_length($a, $b)?;
                $a.par_chunks_mut(GRAIN).zip($b.par_chunks(GRAIN)).for_each(|($a, $b)| $body);
                Ok(())
            }
        }
    };
}

operation2!(Blend { keep, factor }, |op, velocity, gradient| {
    velocity.iter_mut().zip(gradient).for_each(|(v, g)| *v = op.keep * *v + op.factor * g);
});

operation2!(Descend { rate, shrink }, |op, weight, velocity| {
    weight.iter_mut().zip(velocity).for_each(|(w, v)| *w = op.shrink * *w - op.rate * v);
});

/// `velocity ← keep·velocity + factor·gradient`.
pub(super) fn blend(velocity: &Tensor, gradient: &Tensor, keep: f64, factor: f64) -> Result<()> {
    Ok(velocity.inplace_op2(&gradient.contiguous()?, &Blend { keep: keep as f32, factor: factor as f32 })?)
}

/// `w ← w − rate·(velocity + decay·w)`.
pub(super) fn descend(var: &Var, velocity: &Tensor, rate: f64, decay: f64) -> Result<()> {
    let op = Descend { rate: rate as f32, shrink: (1. - rate * decay) as f32 };
    Ok(var.inplace_op2(velocity, &op)?)
}

struct AddProduct {
    keep: f32,
    factor: f32,
}

impl InplaceOp3 for AddProduct {
    fn name(&self) -> &'static str {
        "add_product"
    }

    fn cpu_fwd(
        &self,
        s1: &mut CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Fwd<()> {
        let (x, delta) = (rows(s2, l2)?, rows(s3, l3)?);
        let (inputs, units) = l1.shape().dims2()?;
        if (x.columns, delta.columns, x.rows) != (inputs, units, delta.rows) {
            candle_core::bail!("a product of {:?} and {:?} for {:?}", l2.shape(), l3.shape(), l1.shape())
        }
        product(values_mut(s1, l1)?, self.keep, self.factor, x.transposed(), delta);
        Ok(())
    }
}

/// `velocity ← keep·velocity + factor·xᵀ·delta`.
pub(super) fn add_product(velocity: &Tensor, x: &Tensor, delta: &Tensor, keep: f64, factor: f64) -> Result<()> {
    let op = AddProduct { keep: keep as f32, factor: factor as f32 };
    Ok(velocity.inplace_op3(x, delta, &op)?)
}

struct AddRows {
    classes: usize,
    keep: f32,
    factor: f32,
}

impl InplaceOp3 for AddRows {
    fn name(&self) -> &'static str {
        "add_rows"
    }

    fn cpu_fwd(
        &self,
        s1: &mut CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Fwd<()> {
        let (count, slots) = l2.shape().dims2()?;
        let (inputs, units) = l1.shape().dims2()?;
        let delta = values(s3, l3)?;
        let Some((start, end)) = l2.contiguous_offsets() else { candle_core::bail!("indices must be contiguous") };
        let index = &s2.as_slice::<u32>()?[start..end];
        if slots * self.classes != inputs || delta.len() != count * units {
            candle_core::bail!("rows {:?} of {:?} into {:?}", l2.shape(), l3.shape(), l1.shape())
        }
        if index.iter().any(|&class| class as usize >= self.classes) {
            candle_core::bail!("an index is not below {}", self.classes)
        }
        let velocity = values_mut(s1, l1)?;
        velocity.iter_mut().for_each(|v| *v *= self.keep);
        for (index, delta) in index.chunks_exact(slots.max(1)).zip(delta.chunks_exact(units.max(1))) {
            for (slot, &class) in index.iter().enumerate() {
                let row = &mut velocity[(slot * self.classes + class as usize) * units..][..units];
                row.iter_mut().zip(delta).for_each(|(v, d)| *v += self.factor * d);
            }
        }
        Ok(())
    }
}

/// `velocity ← keep·velocity`, then `factor` times row `r` of `delta` is added to the rows that row `r` of `index`
/// points to.
pub(super) fn add_rows(
    velocity: &Tensor,
    index: &Tensor,
    delta: &Tensor,
    classes: usize,
    keep: f64,
    factor: f64,
) -> Result<()> {
    let op = AddRows { classes, keep: keep as f32, factor: factor as f32 };
    Ok(velocity.inplace_op3(&index.contiguous()?, &delta.contiguous()?, &op)?)
}

struct Adam {
    rate: f32,
    root: f32,
    epsilon: f32,
    shrink: f32,
}

impl InplaceOp3 for Adam {
    fn name(&self) -> &'static str {
        "adam"
    }

    fn cpu_fwd(
        &self,
        s1: &mut CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Fwd<()> {
        let (weight, first, second) = (values_mut(s1, l1)?, values(s2, l2)?, values(s3, l3)?);
        same_length(weight, first)?;
        same_length(weight, second)?;
        let moments = first.par_chunks(GRAIN).zip(second.par_chunks(GRAIN));
        weight.par_chunks_mut(GRAIN).zip(moments).for_each(|(weight, (first, second))| {
            for ((w, m), v) in weight.iter_mut().zip(first).zip(second) {
                *w = self.shrink * *w - self.rate * m / (v.sqrt() / self.root + self.epsilon);
            }
        });
        Ok(())
    }
}

/// `w ← shrink·w − rate·first / (√second / root + ε)`; the corrections of the bias are in `rate` and `root`.
pub(super) fn adam(var: &Var, first: &Tensor, second: &Tensor, numbers: [f64; 4]) -> Result<()> {
    let [rate, root, epsilon, shrink] = numbers.map(|number| number as f32);
    Ok(var.inplace_op3(first, second, &Adam { rate, root, epsilon, shrink })?)
}
