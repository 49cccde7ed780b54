//! The update of one variable, in two forms: with candle's operations, and for `f32` on
//! the CPU.

use std::ops::Range;

use candle_core::{Tensor, Var};
use rayon::prelude::*;

use super::picked_rows::Scatter;
use super::product::{Packed, Product};
use super::{formed, Gradient, GRAIN};
use crate::error::Result;
use crate::flow::input::Values;
use crate::kernels::gemm::accumulate;
use crate::kernels::{self, with_values, with_values_mut};

/// A gradient in a form that can be applied in one pass.
#[derive(Clone, Copy)]
enum Direct<'a> {
    Whole(&'a Tensor),
    Products(&'a [Product]),
}

/// One step of one variable with its coefficients.
#[derive(Clone, Copy)]
pub(super) enum Update {
    /// `v ← μ·v + (1 − μ)·g`, `w ← shrink·w − rate·v`.
    Sgd {
        momentum: f64,
        rate: f64,
        shrink: f64,
    },
    /// `w ← shrink·w − rate·m / (√v / root + ε)`; `rate` and `root` include the bias
    /// corrections. With `sparse` a row without a gradient stays as it is.
    Adam {
        beta1: f64,
        beta2: f64,
        epsilon: f64,
        rate: f64,
        root: f64,
        shrink: f64,
        sparse: bool,
    },
}

impl Update {
    /// Updates a variable and its moments.
    pub fn apply(self, var: &Var, moments: &mut [Tensor], gradient: Gradient<'_>) -> Result<()> {
        if !self.is_sparse() {
            kernels::on_gpu!(var, self.on_gpu(var, moments, gradient));
        }
        if !kernels::is_fast(var) {
            let gradient = gradient.whole(var)?;
            return match self.is_sparse() {
                true => self.plain_rows(var, moments, &gradient),
                false => self.plain(var, moments, &gradient),
            };
        }
        match gradient {
            Gradient::Whole(gradient) => self.fast(var, moments, Direct::Whole(gradient)),
            Gradient::ColumnSums(gradient) => {
                self.fast(var, moments, Direct::Whole(&gradient.column_sums()?))
            }
            Gradient::Products(products) => self.fast(var, moments, Direct::Products(products)),
            Gradient::Formed(form, products) => {
                self.fast(var, moments, Direct::Whole(&formed(var, form, products)?))
            }
        }
    }

    fn is_sparse(self) -> bool {
        matches!(self, Self::Adam { sparse: true, .. })
    }

    /// Updates `f32` on a GPU in place. Products are added to the velocity by the matrix
    /// product itself.
    #[cfg(feature = "cuda")]
    fn on_gpu(self, var: &Var, moments: &[Tensor], gradient: Gradient<'_>) -> Result<()> {
        use crate::kernels::cuda;
        match (self, moments) {
            (
                Self::Sgd {
                    momentum,
                    rate,
                    shrink,
                },
                [velocity, ..],
            ) => {
                let by = cuda::Sgd {
                    keep: momentum,
                    fresh: 1. - momentum,
                    rate,
                    shrink,
                };
                match gradient {
                    Gradient::Products(products) => {
                        add_products(velocity, products, momentum, 1. - momentum)?;
                        cuda::sgd(var, velocity, None, by)
                    }
                    Gradient::ColumnSums(gradient) => {
                        cuda::sgd_columns(var, velocity, &gradient.whole()?, by)
                    }
                    gradient => cuda::sgd(var, velocity, Some(&gradient.whole(var)?), by),
                }
            }
            (
                Self::Adam {
                    beta1,
                    beta2,
                    epsilon,
                    rate,
                    root,
                    shrink,
                    ..
                },
                [first, second, ..],
            ) => {
                let whole = match gradient {
                    Gradient::Products(products) => {
                        let sum = var.zeros_like()?.detach();
                        add_products(&sum, products, 0., 1.)?;
                        sum
                    }
                    gradient => gradient.whole(var)?,
                };
                let by = cuda::Adam {
                    betas: [beta1, beta2],
                    epsilon,
                    rate,
                    root,
                    shrink,
                };
                cuda::adam(var, [first, second], &whole, by)
            }
            _ => Ok(()),
        }
    }

    /// Updates with candle's operations, on any device.
    fn plain(self, var: &Var, moments: &mut [Tensor], gradient: &Tensor) -> Result<()> {
        let blend = |old: &Tensor, new: &Tensor, keep: f64| -> Result<Tensor> {
            Ok(((old * keep)? + (new * (1. - keep))?)?.detach())
        };
        let (change, shrink) = match (self, moments) {
            (
                Self::Sgd {
                    momentum,
                    rate,
                    shrink,
                },
                [velocity, ..],
            ) => {
                *velocity = blend(velocity, gradient, momentum)?;
                ((&*velocity * rate)?, shrink)
            }
            (
                Self::Adam {
                    beta1,
                    beta2,
                    epsilon,
                    rate,
                    root,
                    shrink,
                    ..
                },
                [first, second, ..],
            ) => {
                *first = blend(first, gradient, beta1)?;
                *second = blend(second, &gradient.sqr()?, beta2)?;
                let scale = ((second.sqrt()? / root)? + epsilon)?;
                (((&*first * rate)? / scale)?, shrink)
            }
            _ => return Ok(()),
        };
        Ok(var.set(&((var.as_tensor() * shrink)? - change)?.detach())?)
    }

    /// As [`plain`](Self::plain), but the rows whose gradient is 0 keep their numbers.
    fn plain_rows(self, var: &Var, moments: &mut [Tensor], gradient: &Tensor) -> Result<()> {
        let met = gradient.flatten_from(1)?.abs()?.max(1)?.ne(0.)?;
        let sides = [&[met.elem_count()], &vec![1; var.rank() - 1][..]].concat();
        let met = met.reshape(sides)?.broadcast_as(var.dims())?;
        let before = (var.as_tensor().copy()?, moments.to_vec());
        self.plain(var, moments, gradient)?;
        for (moment, before) in moments.iter_mut().zip(&before.1) {
            *moment = met.where_cond(moment, before)?;
        }
        Ok(var.set(&met.where_cond(var.as_tensor(), &before.0)?)?)
    }

    /// Updates `f32` on the CPU in place, in one pass over memory.
    fn fast(self, var: &Var, moments: &[Tensor], gradient: Direct<'_>) -> Result<()> {
        with_values_mut(var, |weight| match (self, moments) {
            (
                Self::Sgd {
                    momentum,
                    rate,
                    shrink,
                },
                [velocity, ..],
            ) => {
                let numbers = Sgd {
                    keep: momentum as f32,
                    new: (1. - momentum) as f32,
                    rate: rate as f32,
                    shrink: shrink as f32,
                };
                with_values_mut(velocity, |velocity| {
                    numbers.update(weight, velocity, gradient)
                })?
            }
            (
                Self::Adam {
                    beta1,
                    beta2,
                    epsilon,
                    rate,
                    root,
                    shrink,
                    sparse,
                },
                [first, second, ..],
            ) => {
                let numbers = Adam {
                    keep: [beta1 as f32, beta2 as f32],
                    // Computed before rounding: in 32 bits, 1 − 0.999 is wrong in the
                    // fifth digit.
                    new: [(1. - beta1) as f32, (1. - beta2) as f32],
                    epsilon: epsilon as f32,
                    rate: rate as f32,
                    root: root as f32,
                    shrink: shrink as f32,
                    row: sparse.then(|| var.elem_count() / var.dims()[0].max(1)),
                };
                with_values_mut(first, |first| {
                    with_values_mut(second, |second| {
                        numbers.update(weight, [first, second], gradient)
                    })?
                })?
            }
            _ => Ok(()),
        })?
    }
}

#[derive(Clone, Copy)]
struct Sgd {
    keep: f32,
    new: f32,
    rate: f32,
    shrink: f32,
}

impl Sgd {
    fn update(self, weight: &mut [f32], velocity: &mut [f32], gradient: Direct<'_>) -> Result<()> {
        match gradient {
            Direct::Whole(gradient) => with_values(gradient, |gradient| {
                let chunks = weight
                    .par_chunks_mut(GRAIN)
                    .zip(velocity.par_chunks_mut(GRAIN));
                chunks.zip(gradient.par_chunks(GRAIN)).for_each(
                    |((weight, velocity), gradient)| {
                        velocity
                            .iter_mut()
                            .zip(gradient)
                            .for_each(|(v, g)| *v = self.keep * *v + self.new * g);
                        self.descend(velocity, weight);
                    },
                );
            }),
            Direct::Products(products) => each(products, |product, range| {
                let (velocity, weight) = (&mut velocity[range.clone()], &mut weight[range]);
                product.add_to(velocity, weight, self.keep, self.new, |velocity, weight| {
                    self.descend(velocity, weight);
                })
            }),
        }
    }

    fn descend(self, velocity: &[f32], weight: &mut [f32]) {
        weight
            .iter_mut()
            .zip(velocity)
            .for_each(|(w, v)| *w = self.shrink * *w - self.rate * v);
    }
}

#[derive(Clone, Copy)]
struct Adam {
    keep: [f32; 2],
    new: [f32; 2],
    epsilon: f32,
    rate: f32,
    root: f32,
    shrink: f32,
    /// The length of the rows that stay as they are without a gradient.
    row: Option<usize>,
}

impl Adam {
    /// Updates with `moments`, the first and the second.
    fn update(
        self,
        weight: &mut [f32],
        moments: [&mut [f32]; 2],
        gradient: Direct<'_>,
    ) -> Result<()> {
        let [first, second] = moments;
        match gradient {
            Direct::Whole(gradient) => with_values(gradient, |gradient| {
                self.descend_all([weight, first, second], gradient);
            }),
            Direct::Products(products) => each(products, |product, range| {
                let here = [
                    &mut weight[range.clone()],
                    &mut first[range.clone()],
                    &mut second[range.clone()],
                ];
                match &product.values {
                    Values::Dense { .. } | Values::Zeros { .. } => {
                        let mut gradient = vec![0f32; range.len()];
                        product.add_to(&mut gradient, &mut [], 0., 1., |_, _| ())?;
                        self.descend_all(here, &gradient);
                        Ok(())
                    }
                    // Most places have a zero gradient, which is not stored.
                    Values::OneHot {
                        index,
                        classes,
                        strength,
                    } => {
                        let nothing = vec![0f32; product.delta.units()];
                        Scatter::with(
                            (index, *classes),
                            &product.delta,
                            *strength as f32,
                            |scatter| {
                                scatter.each_place(here, |place, here| {
                                    if !scatter.meets(place) {
                                        return self.descend_rows(here, &nothing);
                                    }
                                    let mut gradient = nothing.clone();
                                    scatter.add_to(place, &mut gradient);
                                    self.descend_rows(here, &gradient);
                                });
                            },
                        )
                    }
                }
            }),
        }
    }

    /// Updates in pieces of whole rows, in parallel.
    fn descend_all(self, [weight, first, second]: [&mut [f32]; 3], gradient: &[f32]) {
        let row = self.row.unwrap_or(1).max(1);
        let grain = GRAIN.div_ceil(row) * row;
        let moments = first
            .par_chunks_mut(grain)
            .zip(second.par_chunks_mut(grain));
        let chunks = weight
            .par_chunks_mut(grain)
            .zip(moments)
            .zip(gradient.par_chunks(grain));
        chunks.for_each(|((weight, (first, second)), gradient)| {
            self.descend_rows([weight, first, second], gradient)
        });
    }

    /// Updates some rows; the sparse form only those with a gradient.
    fn descend_rows(self, [weight, first, second]: [&mut [f32]; 3], gradient: &[f32]) {
        let Some(row) = self.row else {
            return self.descend([weight, first, second], gradient);
        };
        let moments = first.chunks_mut(row).zip(second.chunks_mut(row));
        let rows = weight.chunks_mut(row).zip(moments);
        for ((weight, (first, second)), gradient) in rows.zip(gradient.chunks(row)) {
            if gradient.iter().any(|number| *number != 0.) {
                self.descend([weight, first, second], gradient);
            }
        }
    }

    fn descend(self, [weight, first, second]: [&mut [f32]; 3], gradient: &[f32]) {
        let Self {
            keep,
            new,
            epsilon,
            rate,
            root,
            shrink,
            row: _,
        } = self;
        for (((w, m), v), g) in weight.iter_mut().zip(first).zip(second).zip(gradient) {
            *m = keep[0] * *m + new[0] * g;
            *v = keep[1] * *v + new[1] * g * g;
            *w = shrink * *w - rate * *m / (v.sqrt() / root + epsilon);
        }
    }
}

/// `sum ← keep·sum + factor·valuesᵀ·delta` on a GPU, for the rows of each product.
#[cfg(feature = "cuda")]
fn add_products(sum: &Tensor, products: &[Product], keep: f64, factor: f64) -> Result<()> {
    let mut first = 0;
    for product in products {
        add_product((sum, first), product, keep, factor)?;
        first += product.values.width()?;
    }
    Ok(())
}

#[cfg(feature = "cuda")]
fn add_product(
    sum: (&Tensor, usize),
    Product { values, delta }: &Product,
    keep: f64,
    factor: f64,
) -> Result<()> {
    use crate::kernels::cuda;
    match values {
        Values::Dense { matrix, columns } => {
            let values = matrix.narrow(1, columns.start, columns.len())?;
            cuda::add_product(sum, &values, &delta.whole()?, keep, factor)
        }
        Values::OneHot {
            index,
            classes,
            strength,
        } => {
            let (index, factor) = ((index, *classes), factor * strength);
            cuda::scatter(sum, index, &delta.whole()?, keep, factor)
        }
        Values::Zeros { .. } if keep == 1. => Ok(()),
        Values::Zeros { width, .. } => cuda::scale(sum.0, sum.1, *width, keep),
    }
}

/// `sum ← sum + factor·gradient`.
pub(super) fn add_whole(sum: &Tensor, gradient: &Tensor, factor: f64) -> Result<()> {
    kernels::on_gpu!(sum, kernels::cuda::add_to(sum, gradient, factor));
    with_values_mut(sum, |sum| {
        with_values(gradient, |gradient| {
            sum.par_chunks_mut(GRAIN)
                .zip(gradient.par_chunks(GRAIN))
                .for_each(|(sum, gradient)| {
                    sum.iter_mut()
                        .zip(gradient)
                        .for_each(|(sum, gradient)| *sum += factor as f32 * gradient);
                });
        })
    })?
}

/// `sum[row..] ← sum[row..] + factor·valuesᵀ·delta`.
pub(super) fn add(sum: &Tensor, row: usize, product: &Product, factor: f64) -> Result<()> {
    kernels::on_gpu!(sum, add_product((sum, row), product, 1., factor));
    let units = product.delta.units();
    let count = product.values.width()? * units;
    with_values_mut(sum, |sum| {
        product.add_to(
            &mut sum[row * units..][..count],
            &mut [],
            1.,
            factor as f32,
            |_, _| (),
        )
    })?
}

/// The same with packed products, whose values have `width` columns.
pub(super) fn add_packed(
    sum: &Tensor,
    row: usize,
    packed: &Packed,
    width: usize,
    factor: f64,
) -> Result<()> {
    let units = sum.dim(1)?;
    let (values, delta) = packed.matrices(width, units);
    with_values_mut(sum, |sum| {
        let sum = &mut sum[row * units..][..width * units];
        accumulate(
            sum,
            &mut [],
            1.,
            factor as f32,
            values.transposed(),
            delta,
            |_, _| (),
        );
    })
}

/// Calls `f` with each product and the range of its elements in the variable.
fn each(
    products: &[Product],
    mut f: impl FnMut(&Product, Range<usize>) -> Result<()>,
) -> Result<()> {
    let mut first = 0;
    for product in products {
        let count = product.values.width()? * product.delta.units();
        f(product, first..first + count)?;
        first += count;
    }
    Ok(())
}
