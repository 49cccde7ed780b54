//! Updates of `f32` on the CPU, in place and in one pass over memory.

use std::ops::Range;
use std::sync::Arc;

use candle_core::Tensor;
use rayon::prelude::*;

use super::picked_rows::{each_met, Scatter};
use super::product::{Packed, Product};
use super::{Form, GRAIN};
use crate::error::Result;
use crate::flow::input::{Picks, Values};
use crate::kernels::{wide, with_values};

/// A gradient in a form that can be applied in one pass.
#[derive(Clone, Copy)]
pub(super) enum Direct<'a> {
    Whole(&'a Tensor),
    /// The numbers of some weights, which this thread updates alone.
    Part(&'a [f32]),
    Products(&'a [Product]),
    Formed(&'a Arc<dyn Form>, &'a [Product]),
}

#[derive(Clone, Copy)]
pub(super) struct Sgd {
    pub keep: f32,
    pub new: f32,
    pub rate: f32,
    pub shrink: f32,
}

impl Sgd {
    pub fn update(
        self,
        weight: &mut [f32],
        velocity: &mut [f32],
        gradient: Direct<'_>,
    ) -> Result<()> {
        match gradient {
            Direct::Whole(gradient) => with_values(gradient, |gradient| {
                let chunks = weight
                    .par_chunks_mut(GRAIN)
                    .zip(velocity.par_chunks_mut(GRAIN));
                chunks.zip(gradient.par_chunks(GRAIN)).for_each(
                    |((weight, velocity), gradient)| {
                        wide(|| self.follow(gradient, velocity, weight));
                    },
                );
            }),
            Direct::Part(gradient) => {
                wide(|| self.follow(gradient, velocity, weight));
                Ok(())
            }
            Direct::Products(products) => each(products, |product, range| {
                let (velocity, weight) = (&mut velocity[range.clone()], &mut weight[range]);
                product.add_to(velocity, weight, self.keep, self.new, |velocity, weight| {
                    self.descend(velocity, weight);
                })
            }),
            Direct::Formed(form, products) => {
                let finish = |velocity: &mut [f32], weight: &mut [f32]| {
                    wide(|| self.descend(velocity, weight));
                };
                let factors = [self.keep, self.new];
                form_each(form, products, [velocity, weight], factors, &finish)
            }
        }
    }

    #[inline(always)]
    fn follow(self, gradient: &[f32], velocity: &mut [f32], weight: &mut [f32]) {
        velocity
            .iter_mut()
            .zip(gradient)
            .for_each(|(v, g)| *v = self.keep * *v + self.new * g);
        self.descend(velocity, weight);
    }

    #[inline(always)]
    fn descend(self, velocity: &[f32], weight: &mut [f32]) {
        weight
            .iter_mut()
            .zip(velocity)
            .for_each(|(w, v)| *w = self.shrink * *w - self.rate * v);
    }
}

#[derive(Clone, Copy)]
pub(super) struct Adam {
    pub keep: [f32; 2],
    pub new: [f32; 2],
    pub epsilon: f32,
    pub rate: f32,
    pub root: f32,
    pub shrink: f32,
    /// The length of the rows that stay as they are without a gradient.
    pub row: Option<usize>,
}

impl Adam {
    /// Updates with `moments`, the first and the second.
    pub fn update(
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
            Direct::Part(gradient) => {
                self.descend_rows([weight, first, second], gradient);
                Ok(())
            }
            Direct::Products(products) => each(products, |product, range| {
                let here = [
                    &mut weight[range.clone()],
                    &mut first[range.clone()],
                    &mut second[range.clone()],
                ];
                match (&product.values, Picks::of(&product.values)?) {
                    (Values::Dense { matrix, columns }, _) if self.row.is_none() => product
                        .consume((matrix, columns), here, |gradient, here| {
                            self.descend(here, gradient);
                        }),
                    (_, None) => {
                        let mut gradient = vec![0f32; range.len()];
                        product.add_to(&mut gradient, &mut [], 0., 1., |_, _| ())?;
                        self.descend_all(here, &gradient);
                        Ok(())
                    }
                    // Most places have no gradient, and stay as they are.
                    (_, Some(picks)) if self.row.is_some() && product.delta.common().is_empty() => {
                        each_met(&picks, &product.delta, here, |here, gradient| {
                            self.descend_rows(here, gradient);
                        })
                    }
                    // Most places have a zero gradient, which is not stored.
                    (_, Some(picks)) => {
                        let nothing = vec![0f32; product.delta.units()];
                        Scatter::with(&picks, &product.delta, 1., |scatter| {
                            scatter.each_place(here, |place, here| {
                                if scatter.meets(place) {
                                    let mut gradient = nothing.clone();
                                    scatter.add_to(place, &mut gradient);
                                    self.descend_rows(here, &gradient);
                                } else if self.row.is_none() {
                                    self.descend_rows(here, &nothing);
                                }
                            });
                        })
                    }
                }
            }),
            Direct::Formed(form, products) => {
                let mut gradient = vec![0f32; weight.len()];
                let places = [&mut gradient[..], &mut []];
                form_each(form, products, places, [0., 1.], &|_, _| ())?;
                self.descend_all([weight, first, second], &gradient);
                Ok(())
            }
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
            return wide(|| self.descend([weight, first, second], gradient));
        };
        let moments = first.chunks_mut(row).zip(second.chunks_mut(row));
        let rows = weight.chunks_mut(row).zip(moments);
        for ((weight, (first, second)), gradient) in rows.zip(gradient.chunks(row)) {
            if gradient.iter().any(|number| *number != 0.) {
                wide(|| self.descend([weight, first, second], gradient));
            }
        }
    }

    #[inline(always)]
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
            let g = unless_tiny(*g, TINY);
            *m = unless_tiny(keep[0] * *m + new[0] * g, TINY * TINY);
            *v = unless_tiny(keep[1] * *v + new[1] * g * g, TINY * TINY);
            *w = shrink * *w - rate * *m / (v.sqrt() / root + epsilon);
        }
    }
}

/// Gradients below this count as 0. Adam divides them by at least its `ε` of 10⁻⁸, so
/// they would move a weight by less than 10⁻⁸ of the learning rate.
///
/// Their squares would be subnormal, and the moments of a unit without a gradient would
/// become so too. A processor takes about a hundred times as long for such numbers.
const TINY: f32 = 1e-16;

/// `x`, or 0 if it is nearer to 0 than `least`.
#[inline(always)]
fn unless_tiny(x: f32, least: f32) -> f32 {
    match x.abs() < least {
        true => 0.,
        false => x,
    }
}

/// Calls [`Form::add_to`] with each product, without the rows that do not count if these
/// are at least half.
fn form_each(
    form: &Arc<dyn Form>,
    products: &[Product],
    [sum, beside]: [&mut [f32]; 2],
    factors: [f32; 2],
    finish: &(dyn Fn(&mut [f32], &mut [f32]) + Sync),
) -> Result<()> {
    let mut first = 0;
    for product in products {
        let (width, mut packed) = (product.values.width()?, Packed::default());
        let packed = match packed.push(product)? {
            true => &packed.into_product(width, product.delta.units())?,
            false => product,
        };
        form.add_to([&mut *sum, &mut *beside], first, packed, factors, finish)?;
        first += width;
    }
    Ok(())
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
