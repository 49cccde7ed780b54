//! The update of one variable: with candle's operations, on a GPU, or in place on the
//! CPU.

use std::ops::Range;

use candle_core::{Tensor, Var};
use rayon::prelude::*;

use super::in_place::{Adam, Direct, Sgd};
use super::muon;
use super::product::{Packed, Product};
use super::{Gradient, GRAIN};
use crate::error::Result;
use crate::kernels::gemm::accumulate;
use crate::kernels::{self, wide, with_values, with_values_mut};

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
    /// Muon, for a matrix.
    Muon {
        momentum: f64,
        rate: f64,
        shrink: f64,
    },
}

impl Update {
    /// Updates a variable and its moments.
    pub fn apply(self, var: &Var, moments: &mut [Tensor], gradient: Gradient<'_>) -> Result<()> {
        if let Self::Muon {
            momentum,
            rate,
            shrink,
        } = self
        {
            let gradient = gradient.whole(var)?;
            return muon::update(var, &mut moments[0], &gradient, momentum, rate, shrink);
        }
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
        // What is changed in place cannot be read at the same time.
        let changed = [var.as_tensor()].into_iter().chain(moments.iter());
        let changed: Vec<_> = changed.map(kernels::memory_of).collect();
        let apart = |x: &Tensor| -> Result<Tensor> {
            match changed.contains(&kernels::memory_of(x)) {
                true => Ok(x.copy()?),
                false => Ok(x.clone()),
            }
        };
        let all_apart = |products: &[Product]| -> Result<Vec<Product>> {
            let products = products.iter().map(|product| product.map(&apart));
            products.collect()
        };
        let fast = |gradient: Direct<'_>| {
            let all = 0..var.elem_count();
            with_values_mut(var, |weight| self.fast(var, all, weight, moments, gradient))?
        };
        match gradient {
            Gradient::Whole(gradient) => fast(Direct::Whole(&apart(gradient)?)),
            Gradient::ColumnSums(gradient) => fast(Direct::Whole(&gradient.column_sums()?)),
            Gradient::Products(products) => fast(Direct::Products(&all_apart(products)?)),
            Gradient::Formed(form, products) => fast(Direct::Formed(form, &all_apart(products)?)),
        }
    }

    /// Whether each number changes by its own gradient alone, so that
    /// [`apply_to_part`](Self::apply_to_part) can be called.
    pub fn can_be_divided(self, var: &Var) -> bool {
        kernels::is_fast(var) && !self.is_sparse() && !matches!(self, Self::Muon { .. })
    }

    /// Computes the new values of the numbers at `place` from their gradient, and changes
    /// their moments. The variable stays as it is.
    pub fn apply_to_part(
        self,
        var: &Var,
        moments: &[Tensor],
        place: Range<usize>,
        new: &mut [f32],
        gradient: &[f32],
    ) -> Result<()> {
        with_values(var, |weight| new.copy_from_slice(&weight[place.clone()]))?;
        self.fast(var, place, new, moments, Direct::Part(gradient))
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

    /// Updates `f32` on the CPU in place, in one pass over memory: the weights and
    /// moments of a variable at `place`.
    fn fast(
        self,
        var: &Var,
        place: Range<usize>,
        weight: &mut [f32],
        moments: &[Tensor],
        gradient: Direct<'_>,
    ) -> Result<()> {
        match (self, moments) {
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
                    numbers.update(weight, &mut velocity[place], gradient)
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
                        let moments = [first, second].map(|moment| &mut moment[place.clone()]);
                        numbers.update(weight, moments, gradient)
                    })?
                })?
            }
            _ => Ok(()),
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
    use crate::flow::input::Values;
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
        Values::Sparse { .. } => {
            let values = values.to_matrix(sum.0.dtype(), sum.0.device())?;
            cuda::add_product(sum, &values, &delta.whole()?, keep, factor)
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
                    wide(|| kernels::add(sum, factor as f32, gradient));
                });
        })
    })?
}

/// `sum[row..] ← keep·sum[row..] + factor·valuesᵀ·delta`.
pub(super) fn add(
    sum: &Tensor,
    row: usize,
    product: &Product,
    [keep, factor]: [f64; 2],
) -> Result<()> {
    kernels::on_gpu!(sum, add_product((sum, row), product, keep, factor));
    let units = product.delta.units();
    let count = product.values.width()? * units;
    with_values_mut(sum, |sum| {
        product.add_to(
            &mut sum[row * units..][..count],
            &mut [],
            keep as f32,
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
    [keep, factor]: [f64; 2],
) -> Result<()> {
    let units = sum.dim(1)?;
    let (values, delta) = packed.matrices(width, units);
    with_values_mut(sum, |sum| {
        let sum = &mut sum[row * units..][..width * units];
        accumulate(
            sum,
            &mut [],
            keep as f32,
            factor as f32,
            values.transposed(),
            delta,
            |_, _| (),
        );
    })
}
