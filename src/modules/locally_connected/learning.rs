//! The gradients and the update of weights that are not shared.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::{per_location, simd, Fields, LocallyConnected};
use crate::error::{Error, Result};
use crate::flow::input::{Input, Part, Values};
use crate::flow::step::Step;
use crate::kernels::{self, wide, with_rows};
use crate::optim::{self, Form, Gradient, Optimiser, OutputGradient, Product};

impl LocallyConnected {
    /// The gradients of weight and bias, `(L, F, N)` and `(L·N,)`, given the gradient of
    /// the loss with respect to `y`, `(V·B, N, gridₕ, grid_w)` or flattened.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes do not match.
    pub fn gradients(&self, x: &Input, gradient: impl Into<OutputGradient>) -> Result<[Tensor; 2]> {
        let delta = self.checked(x, gradient.into())?;
        let weight = match kernels::is_fast(&self.weight.1) {
            true => optim::formed(&self.weight.1, &self.form(), &self.products(x, &delta)?)?,
            false => self.plain(x, &delta)?,
        };
        Ok([weight, self.of_bias(&delta)?])
    }

    fn form(&self) -> Arc<dyn Form> {
        self.fields.clone()
    }

    /// The gradient of the weight, with candle's operations.
    fn plain(&self, x: &Input, delta: &OutputGradient) -> Result<Tensor> {
        let (rows, locations, units) = self.sizes(x)?;
        let delta = delta.whole()?.reshape((rows, units, locations))?;
        let delta = delta.permute((2, 0, 1))?.contiguous()?; // (L, R, N)
        let fields = self.fields.plain(&x.join()?)?.transpose(1, 2)?;
        Ok(fields.contiguous()?.matmul(&delta)?)
    }

    fn of_bias(&self, delta: &OutputGradient) -> Result<Tensor> {
        let sums = delta
            .column_sums()?
            .reshape(((), self.fields.locations()))?;
        Ok(sums.t()?.contiguous()?.flatten_all()?)
    }

    /// The output gradient of all rows, `(V·B, N·L)`, after a check of its shape.
    fn checked(&self, x: &Input, gradient: OutputGradient) -> Result<OutputGradient> {
        let (rows, locations, units) = self.sizes(x)?;
        let gradient = gradient.flattened()?;
        if gradient.dims() == [rows, units * locations] {
            return Ok(gradient);
        }
        let [height, width] = self.fields.grid;
        let expected = format!("({rows}, {units}, {height}, {width})");
        Err(Error::shape(&self.weight.0, gradient.dims(), expected))
    }

    /// The products of the gradient of the weight, one for each part.
    fn products(&self, x: &Input, delta: &OutputGradient) -> Result<Vec<Product>> {
        let product = |part: &Part| {
            let is_shared = part.values.rows()? != x.rows();
            let views = if is_shared { x.views() } else { 1 };
            let delta = delta.through_scale(part.scale.as_ref(), views)?;
            Ok(Product {
                values: part.values.clone(),
                delta,
            })
        };
        self.channels(x)?.iter().map(product).collect()
    }

    /// Updates weight and bias, given the gradient of the loss with respect to `y`. See
    /// [`LocallyConnected::gradients`]. Zero rows and shared parts are treated as in
    /// [`Linear::update`](crate::Linear::update).
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes do not match.
    pub fn update(
        &mut self,
        x: &Input,
        gradient: impl Into<OutputGradient>,
        optimiser: &mut Optimiser,
        step: &Step,
    ) -> Result<()> {
        let delta = self.checked(x, gradient.into())?;
        let (name, weight) = &self.weight;
        if kernels::is_fast(weight) {
            let products = self.products(x, &delta)?;
            let gradient = Gradient::Formed(&self.form(), &products);
            optimiser.update(name, weight, gradient, step)?;
        } else {
            let gradient = self.plain(x, &delta)?;
            optimiser.update(name, weight, Gradient::Whole(&gradient), step)?;
        }
        let (name, bias) = &self.bias;
        optimiser.update(name, bias, Gradient::Whole(&self.of_bias(&delta)?), step)
    }
}

impl Form for Fields {
    fn add_to(
        &self,
        [sum, beside]: [&mut [f32]; 2],
        first: usize,
        product: &Product,
        factors: [f32; 2],
        finish: &(dyn Fn(&mut [f32], &mut [f32]) + Sync),
    ) -> Result<()> {
        let [keep, factor] = factors;
        let delta = product.delta.whole()?;
        let units = product.delta.units() / self.locations();
        let (channel, width) = (first / self.pixels(), product.values.width()?);
        let size = self.numbers() * units;
        let begin = channel * self.area() * units;
        let range = begin..begin + self.of_width(width) * units;
        let is_zero = delta.dim(0)? == 0 || matches!(product.values, Values::Zeros { .. });
        let is_narrow = self.is_narrow(units);
        if is_zero && keep == 1. && beside.is_empty() {
            return Ok(());
        }
        // The form for few units only adds; the other one does all in its products.
        if (is_zero || is_narrow) && keep != 1. {
            let scale = |[sum, _]: [&mut [f32]; 2]| match keep {
                0. => sum.fill(0.),
                _ => wide(|| sum.iter_mut().for_each(|sum| *sum *= keep)),
            };
            let each = of_each(sum, &mut [], size, &range);
            each.into_par_iter().for_each(scale);
        }
        if !is_zero {
            let matrix = product.values.to_matrix(kernels::FAST, &Device::Cpu)?;
            with_rows(&matrix, |x| {
                with_rows(&delta, |delta| match is_narrow {
                    true => simd::gradient(self, &x, &delta, sum, channel, factor),
                    false => {
                        let places = of_each(sum, beside, size, &range);
                        per_location::gradient(self, [&x, &delta], places, factors, finish);
                    }
                })
            })??;
        }
        if is_zero || is_narrow {
            let each = of_each(sum, beside, size, &range).into_par_iter();
            each.for_each(|[sum, beside]| finish(sum, beside));
        }
        Ok(())
    }
}

/// The elements `range` of each location, in a sum and what is beside it, which may be empty.
fn of_each<'a>(
    sum: &'a mut [f32],
    beside: &'a mut [f32],
    size: usize,
    range: &Range<usize>,
) -> Vec<[&'a mut [f32]; 2]> {
    let mut beside = beside.chunks_exact_mut(size);
    let of_location = |sum: &'a mut [f32]| {
        let beside = beside.next().map(|beside| &mut beside[range.clone()]);
        [&mut sum[range.clone()], beside.unwrap_or_default()]
    };
    sum.chunks_exact_mut(size).map(of_location).collect()
}

#[cfg(test)]
mod tests {
    use candle_core::DType;
    use candle_nn::Init;

    use super::super::tests::{assert_close, local, numbers, views};
    use super::*;
    use crate::flow::vars::Vars;
    use crate::optim::{Algorithm, OptimiserSpec, Schedule, Span};

    /// Tests few units, a full block, more than a block, and more than `MOST_UNITS`; rows
    /// that fill vectors or not.
    #[test]
    fn both_forms_and_autograd_agree() -> Result<()> {
        let fields = Fields::new([2, 9, 8], 4, 3, 1)?;
        assert_eq!((fields.grid(), fields.numbers()), ([3, 3], 32));
        for (rows, units) in [(5, 3), (1, 1), (48, 4), (75, 5), (20, simd::MOST_UNITS + 1)] {
            let x = numbers(&[rows, 2, 9, 8], 1)?;
            let double = local(DType::F64, &fields, units)?;
            // The definition, differentiated by autograd.
            let product = fields
                .plain(&x.to_dtype(DType::F64)?)?
                .matmul(&double.weight.1)?;
            let sum = product
                .broadcast_add(&double.bias.1.reshape((9, 1, units))?)?
                .relu()?;
            let activity = sum
                .permute((1, 2, 0))?
                .contiguous()?
                .reshape((rows, units, 3, 3))?;
            let gradients = (activity.sqr()?.sum_all()? * 0.5)?.backward()?;
            for dtype in [DType::F32, DType::F64] {
                let local = local(dtype, &fields, units)?;
                let x = Input::of(x.to_dtype(dtype)?)?;
                let found = local.forward(&x)?;
                let [weight, bias] = local.gradients(&x, &found)?;
                let expected = [&double.weight.1, &double.bias.1]
                    .map(|var| gradients.get(var).expect("it depends on it"));
                for (found, expected) in [
                    (&found, &activity),
                    (&weight, expected[0]),
                    (&bias, expected[1]),
                ] {
                    assert_close(
                        found,
                        expected,
                        &format!("{rows} rows, {units} units, {dtype:?}"),
                    )?;
                }
            }
        }
        Ok(())
    }

    #[test]
    fn zero_rows_and_common_rows_make_no_difference() -> Result<()> {
        let fields = Fields::new([2, 9, 8], 4, 3, 1)?;
        for units in [3, simd::MOST_UNITS + 1] {
            let (local, x) = (
                local(DType::F32, &fields, units)?,
                numbers(&[40, 2, 9, 8], 1)?,
            );
            for (kept, common) in [(2, true), (0, true), (2, false), (0, false)] {
                let few = numbers(&[kept, units * 9], 2)?.pad_with_zeros(0, 40 - kept, 0)?;
                let mut delta = OutputGradient::from(few);
                if common {
                    delta = delta.with_common(&numbers(&[units * 9], 3)?, 20)?;
                }
                let whole = delta.whole()?.to_dtype(DType::F64)?;
                let expected = local.plain(&Input::of(x.to_dtype(DType::F64)?)?, &whole.into())?;
                let [found, _] = local.gradients(&Input::of(x.clone())?, delta)?;
                assert_close(
                    &found,
                    &expected,
                    &format!("{units} units, {kept} rows, common: {common}"),
                )?;
            }
        }
        Ok(())
    }

    /// Compares the fast and the 64-bit form after lessons on the same pixels, one by one
    /// or accumulated.
    #[test]
    fn lessons_are_accumulated() -> Result<()> {
        let shape = [3, 6, 21];
        let fields = Fields::new(shape, 4, 1, 2)?;
        let step = Step::first(1);
        let (sgd, adam, many) = (Algorithm::Sgd, Algorithm::Adam, simd::MOST_UNITS + 1);
        for (units, gathered, method) in [
            (3, true, sgd),
            (3, false, sgd),
            (many, true, sgd),
            (many, false, sgd),
            (3, false, adam),
            (many, false, adam),
        ] {
            let learned = |dtype: DType| -> Result<[Tensor; 2]> {
                let vars = Vars::new(3, dtype, &Device::Cpu);
                let mut local = LocallyConnected::new(
                    &vars,
                    fields.clone(),
                    units,
                    Init::Randn {
                        mean: 0.,
                        stdev: 0.5,
                    },
                )?;
                let schedule = Schedule::Constant;
                let descent = OptimiserSpec {
                    optimiser: method,
                    lr: 0.1,
                    weight_decay: 0.01,
                    momentum: 0.5,
                    schedule,
                };
                let mut optimiser = Optimiser::new(vars, descent, Span::Epochs(0..1));
                // The last step has zero gradients, so that only the momentum acts.
                for strength in [0.1, 0.1, 0.] {
                    let x = views(dtype, 3, shape, 0)?;
                    let lessons = [0., 1., 2.].map(|time| -> Result<_> {
                        let mut parts = x.parts().to_vec();
                        parts[1] = views(dtype, 3, shape, 0)?.parts()[1].clone();
                        let x = x.with_parts(parts)?.shaped(&shape)?;
                        let delta = (local.forward(&x)? * (strength * time))?;
                        Ok((x, delta))
                    });
                    if gathered {
                        optimiser.accumulate(3);
                    }
                    for lesson in lessons {
                        let (x, delta) = lesson?;
                        local.update(&x, delta, &mut optimiser, &step)?;
                    }
                    if gathered {
                        optimiser.apply_accumulated(&step)?;
                    }
                }
                Ok([
                    local.weight.1.as_tensor().copy()?,
                    local.forward(&views(dtype, 3, shape, 0)?)?,
                ])
            };
            let (found, expected) = (learned(DType::F32)?, learned(DType::F64)?);
            for (found, expected) in found.iter().zip(&expected) {
                assert_close(
                    found,
                    expected,
                    &format!("{units} units, gathered: {gathered}, {}", method.word()),
                )?;
            }
        }
        Ok(())
    }
}
