//! The updates for `f32` on the CPU: in place, and in one pass over memory.

use candle_core::{Tensor, Var};
use rayon::prelude::*;

use super::product::{Packed, Product};
use super::{Gradient, Update};
use crate::error::Result;
use crate::ops::gemm::accumulate;
use crate::ops::{with_values, with_values_mut};

/// Elements that one thread takes at a time.
const GRAIN: usize = 1 << 16;

pub(super) fn update(var: &Var, moments: &[Tensor], gradient: Gradient<'_>, update: Update) -> Result<()> {
    with_values_mut(var, |weight| match (update, moments) {
        (Update::Sgd { momentum, rate, shrink }, [velocity, ..]) => {
            let numbers =
                Sgd { keep: momentum as f32, new: (1. - momentum) as f32, rate: rate as f32, shrink: shrink as f32 };
            with_values_mut(velocity, |velocity| numbers.update(weight, velocity, gradient))?
        }
        (Update::Adam { .. }, [first, second, ..]) => with_values_mut(first, |first| {
            with_values_mut(second, |second| adam(weight, first, second, gradient, update))?
        })?,
        _ => Ok(()),
    })?
}

#[derive(Clone, Copy)]
struct Sgd {
    keep: f32,
    new: f32,
    rate: f32,
    shrink: f32,
}

impl Sgd {
    fn update(self, weight: &mut [f32], velocity: &mut [f32], gradient: Gradient<'_>) -> Result<()> {
        match gradient {
            Gradient::Whole(gradient) => with_values(gradient, |gradient| {
                let chunks = weight.par_chunks_mut(GRAIN).zip(velocity.par_chunks_mut(GRAIN));
                chunks.zip(gradient.par_chunks(GRAIN)).for_each(|((weight, velocity), gradient)| {
                    velocity.iter_mut().zip(gradient).for_each(|(v, g)| *v = self.keep * *v + self.new * g);
                    self.descend(velocity, weight);
                });
            }),
            Gradient::Products(products) => each(products, velocity, weight, |product, velocity, weight| {
                product.add_to(velocity, weight, self.keep, self.new, |velocity, weight| {
                    self.descend(velocity, weight);
                })
            }),
        }
    }

    fn descend(self, velocity: &[f32], weight: &mut [f32]) {
        weight.iter_mut().zip(velocity).for_each(|(w, v)| *w = self.shrink * *w - self.rate * v);
    }
}

fn adam(
    weight: &mut [f32],
    first: &mut [f32],
    second: &mut [f32],
    gradient: Gradient<'_>,
    update: Update,
) -> Result<()> {
    let Update::Adam { beta1, beta2, epsilon, rate, root, shrink } = update else { return Ok(()) };
    // Before rounding: 1 − 0.999 in 32 bits is off in the fifth digit.
    let [new1, new2] = [1. - beta1, 1. - beta2].map(|number| number as f32);
    let [beta1, beta2, epsilon, rate, root, shrink] =
        [beta1, beta2, epsilon, rate, root, shrink].map(|number| number as f32);
    let count = weight.len();
    let mut change = |gradient: &[f32]| {
        let moments = first.par_chunks_mut(GRAIN).zip(second.par_chunks_mut(GRAIN));
        let chunks = weight.par_chunks_mut(GRAIN).zip(moments).zip(gradient.par_chunks(GRAIN));
        chunks.for_each(|((weight, (first, second)), gradient)| {
            for (((w, m), v), g) in weight.iter_mut().zip(first).zip(second).zip(gradient) {
                *m = beta1 * *m + new1 * g;
                *v = beta2 * *v + new2 * g * g;
                *w = shrink * *w - rate * *m / (v.sqrt() / root + epsilon);
            }
        });
    };
    match gradient {
        Gradient::Whole(gradient) => with_values(gradient, change),
        Gradient::Products(products) => {
            let mut whole = vec![0f32; count];
            each(products, &mut whole, &mut [], |product, whole, _| product.add_to(whole, &mut [], 0., 1., |_, _| ()))?;
            change(&whole);
            Ok(())
        }
    }
}

/// `sum ← sum + factor·gradient`.
pub(super) fn add_whole(sum: &Tensor, gradient: &Tensor, factor: f64) -> Result<()> {
    with_values_mut(sum, |sum| {
        with_values(gradient, |gradient| {
            sum.par_chunks_mut(GRAIN).zip(gradient.par_chunks(GRAIN)).for_each(|(sum, gradient)| {
                sum.iter_mut().zip(gradient).for_each(|(sum, gradient)| *sum += factor as f32 * gradient);
            });
        })
    })?
}

/// `sum[row..] ← sum[row..] + factor·valuesᵀ·delta`.
pub(super) fn add(sum: &Tensor, row: usize, product: &Product, factor: f64) -> Result<()> {
    let units = product.delta.units();
    let count = product.values.width()? * units;
    with_values_mut(sum, |sum| product.add_to(&mut sum[row * units..][..count], &mut [], 1., factor as f32, |_, _| ()))?
}

/// The same with products that are packed, of values `width` wide.
pub(super) fn add_packed(sum: &Tensor, row: usize, packed: &Packed, width: usize, factor: f64) -> Result<()> {
    let units = sum.dim(1)?;
    let (values, delta) = packed.matrices(width, units);
    with_values_mut(sum, |sum| {
        let sum = &mut sum[row * units..][..width * units];
        accumulate(sum, &mut [], 1., factor as f32, values.transposed(), delta, |_, _| ());
    })
}

/// Hands every product the rows of both matrices that it is for; the second may be empty.
fn each(
    products: &[Product],
    mut a: &mut [f32],
    mut b: &mut [f32],
    f: impl Fn(&Product, &mut [f32], &mut [f32]) -> Result<()>,
) -> Result<()> {
    for product in products {
        let count = product.values.width()? * product.delta.units();
        let (here, rest) = std::mem::take(&mut a).split_at_mut(count);
        a = rest;
        let count = count.min(b.len());
        let (beside, rest) = std::mem::take(&mut b).split_at_mut(count);
        b = rest;
        f(product, here, beside)?;
    }
    Ok(())
}
