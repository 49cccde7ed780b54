//! Local receptive fields: like a convolution, but each location has its own weights.

mod fields;
mod lanes;
mod learning;
mod per_location;
mod simd;

use std::sync::Arc;

use candle_core::{Device, Tensor, Var};
use candle_nn::Init;

pub use self::fields::Fields;
use super::terms::numbers;
use crate::error::{Error, Result};
use crate::flow::input::{Input, Part, Values};
use crate::flow::vars::Vars;
use crate::kernels::{self, add, with_rows, with_values};
use crate::modules::cache::PartCache;

/// A convolution whose weights are not shared: every location of the grid has its own
/// weights.
///
/// `y[r, n, l] = Σ_f field(x)[r, l, f]·W[l, f, n] + b[l, n]`. Location `l` of
/// `L = gridₕ·grid_w` sees all channels of the `field×field` pixels that begin at
/// `stride` times its position in the grid. Pixels beyond the border are zero.
///
/// | tensor | shape                     | meaning                                  |
/// |--------|---------------------------|------------------------------------------|
/// | `x`    | `(V·B, C, H, W)`          | an [`Input`]                             |
/// | `W`    | `(L, C·field², N)`        | the variable `weight`                    |
/// | `b`    | `(L·N,)`                  | the variable `bias`, ordered by location |
/// | `y`    | `(V·B, N, gridₕ, grid_w)` | not attached to the variables            |
///
/// A location costs `2·V·B·C·field²·N` operations in the forward pass and as many for the
/// gradient of its weight. It is computed by matrix products, or by sums over vectors if
/// a location has few units.
///
/// Parts of the input that are whole channels are multiplied one by one, as in
/// [`Linear`](crate::Linear). A part that all views share is multiplied once for all of
/// them. Sums over a part that is used again are cached until a variable changes.
pub struct LocallyConnected {
    vars: Vars,
    weight: (String, Var),
    bias: (String, Var),
    fields: Arc<Fields>,
    sums: PartCache<Vec<f32>>,
    turned: PartCache<Vec<f32>>,
}

impl LocallyConnected {
    /// A new map with `units` units at each location, weights initialised with `init`,
    /// and zero biases.
    ///
    /// # Errors
    /// As [`Vars::get`].
    pub fn new(vars: &Vars, fields: Fields, units: usize, init: Init) -> Result<Self> {
        let shape = (fields.locations(), fields.numbers(), units);
        let weight = (vars.path("weight"), vars.get("weight", shape, init)?);
        let count = fields.locations() * units;
        let bias = (vars.path("bias"), vars.get("bias", count, Init::Const(0.))?);
        Ok(Self {
            vars: vars.clone(),
            weight,
            bias,
            fields: Arc::new(fields),
            sums: PartCache::default(),
            turned: PartCache::default(),
        })
    }

    /// The weights of each unit of each location, `(L·N, C, field, field)`, ordered by
    /// location.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn weight_images(&self) -> Result<Tensor> {
        let (locations, _, units) = self.weight.1.dims3()?;
        let (channels, field) = (self.fields.image[0], self.fields.field);
        let rows = self
            .weight
            .1
            .as_detached_tensor()
            .transpose(1, 2)?
            .contiguous()?;
        Ok(rows.reshape((locations * units, channels, field, field))?)
    }

    /// The number of rows, locations and units.
    fn sizes(&self, x: &Input) -> Result<(usize, usize, usize)> {
        let [channels, height, width] = self.fields.image;
        if x.width() != channels * height * width {
            let expected = format!("images ({channels}, {height}, {width})");
            return Err(Error::shape(&self.weight.0, x.shape(), expected));
        }
        Ok((x.rows(), self.fields.locations(), self.weight.1.dim(2)?))
    }

    /// The parts of an input, all dense or zeros. Parts that are not whole channels are
    /// joined with their neighbours.
    fn channels(&self, x: &Input) -> Result<Vec<Part>> {
        let mut whole = Vec::with_capacity(x.parts().len());
        let (mut open, mut width) = (Vec::new(), 0);
        for part in x.parts() {
            width += part.values.width()?;
            open.push(part.clone());
            if width % self.fields.pixels() != 0 {
                continue;
            }
            let parts = std::mem::take(&mut open);
            whole.push(match &parts[..] {
                [part] if !part.values.picks() => part.clone(),
                _ => Values::dense(x.with_parts(parts)?.join()?)?.into(),
            });
        }
        Ok(whole)
    }

    /// `max(0, y)`, `(V·B, N, gridₕ, grid_w)`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the size of `x` is not that of the images of the fields.
    pub fn forward(&self, x: &Input) -> Result<Tensor> {
        let (rows, locations, units) = self.sizes(x)?;
        let shape = (rows, units, self.fields.grid[0], self.fields.grid[1]);
        if !kernels::is_fast(&self.weight.1) {
            let fields = self.fields.plain(&x.join()?)?;
            let product = fields.matmul(&self.weight.1.as_detached_tensor())?; // (L, R, N)
            let bias = self
                .bias
                .1
                .as_detached_tensor()
                .reshape((locations, 1, units))?;
            let sum = product.broadcast_add(&bias)?.relu()?;
            return Ok(sum.permute((1, 2, 0))?.contiguous()?.reshape(shape)?);
        }
        let bias = self
            .bias
            .1
            .reshape((locations, units))?
            .t()?
            .flatten_all()?;
        let bias = bias.to_vec1::<f32>()?;
        let terms = self.terms(x)?;
        let out = kernels::fresh_rows(rows, units * locations, |row, out| {
            for term in &terms {
                let scale = term.scale.as_ref().map_or(1., |scale| scale[row]);
                self.add_row(term, row % term.rows, units, scale, out);
            }
            for (out, bias) in out.iter_mut().zip(&bias) {
                // Not `max`, which would hide NaN.
                *out = if *out + bias < 0. { 0. } else { *out + bias };
            }
        });
        Ok(Tensor::from_vec(out, shape, self.weight.1.device())?)
    }

    /// The sums of the fields of each part.
    fn terms(&self, x: &Input) -> Result<Vec<Term>> {
        let mut terms = Vec::with_capacity(x.parts().len());
        let mut first = 0;
        // A whole input is multiplied once, by its own layer.
        let is_whole = x.parts().len() == 1 && x.views() == 1;
        for part in self.channels(x)? {
            if let Values::Dense { matrix, columns } = &part.values {
                let rows = part.values.rows()?;
                let is_shared = rows == x.batch() && !is_whole;
                let (key, version) = ((matrix, columns), self.vars.version());
                let multiply = || self.multiply(&part.values, first);
                let sums = self.sums.get(first, key, version, is_shared, multiply)?;
                terms.push(Term {
                    sums,
                    rows,
                    scale: numbers(part.scale.as_ref())?,
                });
            }
            first += part.values.width()?;
        }
        Ok(terms)
    }

    /// The sums of the fields of some channels, from column `first` on, in the memory
    /// layout of the form used.
    fn multiply(&self, values: &Values, first: usize) -> Result<Vec<f32>> {
        let (fields, units) = (&*self.fields, self.weight.1.dim(2)?);
        let channel = first / fields.pixels();
        let turned = match fields.is_narrow(units) {
            true => Some(self.turned()?),
            false => None,
        };
        let matrix = values.to_matrix(kernels::FAST, &Device::Cpu)?;
        with_rows(&matrix, |x| match &turned {
            Some(weight) => Ok(simd::forward(fields, &x, weight, channel, units)),
            None => with_values(&self.weight.1, |weight| {
                per_location::forward(fields, &x, weight, channel, units)
            }),
        })?
    }

    /// The weight in the layout for few units; cached until a variable changes.
    fn turned(&self) -> Result<Arc<Vec<f32>>> {
        let (weight, units) = (self.weight.1.as_tensor(), self.weight.1.dim(2)?);
        let key = (weight, &(0..units));
        self.turned.get(0, key, self.vars.version(), true, || {
            with_values(weight, |weight| lanes::turned(&self.fields, weight, units))
        })
    }

    /// Adds a row of the sums of a part, times a scale, to a row of the output, `(N, L)`.
    fn add_row(&self, term: &Term, row: usize, units: usize, scale: f32, out: &mut [f32]) {
        let (locations, rows) = (self.fields.locations(), term.rows);
        if !self.fields.is_narrow(units) {
            for (location, sums) in term.sums.chunks_exact(rows * units).enumerate() {
                let out = out[location..].iter_mut().step_by(locations);
                for (out, sum) in out.zip(&sums[row * units..][..units]) {
                    *out += scale * sum;
                }
            }
            return;
        }
        let pieces = lanes::Pieces::of(&self.fields);
        let sums = term.sums.chunks_exact(rows * units * lanes::LANES);
        for (piece, sums) in sums.enumerate() {
            let (first, count) = pieces.locations(piece);
            let sums = sums[row * units * lanes::LANES..].chunks_exact(lanes::LANES);
            for (out, sums) in out.chunks_exact_mut(locations).zip(sums) {
                add(&mut out[first..first + count], scale, sums);
            }
        }
    }
}

/// The sums of the fields over a part of the input.
struct Term {
    sums: Arc<Vec<f32>>,
    /// The number of rows of the part: `V·B`, or `B` if all views share it.
    rows: usize,
    scale: Option<Vec<f32>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::input::Normalise;

    use candle_core::{DType, Device};
    pub fn numbers(shape: &[usize], seed: u64) -> Result<Tensor> {
        let mut rng = crate::flow::random::stream(seed, "test", 0);
        let count = shape.iter().product();
        let values: Vec<f32> = (0..count)
            .map(|_| crate::flow::random::unit(&mut rng) as f32 - 0.5)
            .collect();
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
    }

    pub fn local(dtype: DType, fields: &Fields, units: usize) -> Result<LocallyConnected> {
        let vars = Vars::new(3, dtype, &Device::Cpu);
        LocallyConnected::new(
            &vars,
            fields.clone(),
            units,
            Init::Randn {
                mean: 0.,
                stdev: 0.5,
            },
        )
    }

    /// With the same weights at every location it equals candle's convolution.
    #[test]
    fn with_shared_weights_it_is_a_convolution() -> Result<()> {
        for (channels, height, width, field, stride, padding) in
            [(1, 7, 6, 3, 2, 0), (2, 5, 5, 3, 1, 1), (3, 4, 9, 4, 3, 2)]
        {
            let fields = Fields::new([channels, height, width], field, stride, padding)?;
            let x = numbers(&[4, channels, height, width], 1)?;
            let local = local(DType::F32, &fields, 3)?;
            let kernel = numbers(&[3, channels, field, field], 2)?;
            let shared = kernel.flatten_from(1)?.t()?.unsqueeze(0)?; // (1, F, N)
            local
                .weight
                .1
                .set(&shared.broadcast_as(local.weight.1.shape())?.contiguous()?)?;
            let expected = x.conv2d(&kernel, padding, stride, 1, 1)?.relu()?;
            let difference = (local.forward(&Input::of(x)?)? - expected)?
                .abs()?
                .flatten_all()?
                .max(0)?
                .to_scalar::<f32>()?;
            assert!(difference < 1e-5, "{difference}");
        }
        Ok(())
    }

    /// An input of two views: a shared channel, a separate one in two parts if `split` >
    /// 0, a label.
    pub fn views(dtype: DType, batch: usize, shape: [usize; 3], split: usize) -> Result<Input> {
        let pixels = shape[1] * shape[2];
        let part = |rows: usize, columns: usize, seed: u64| -> Result<Values> {
            Values::dense(numbers(&[rows, columns], seed)?.to_dtype(dtype)?)
        };
        let mut parts = vec![part(batch, pixels, 1)?, part(2 * batch, pixels - split, 2)?];
        if split > 0 {
            parts.push(part(batch, split, 3)?);
        }
        let below =
            Input::new(parts, batch, 2, &[2 * pixels])?.normalised(Normalise::MeanSquare)?;
        let label: Vec<u32> = (0..2 * batch as u32).map(|row| row * 7 % 5).collect();
        let index = Tensor::from_vec(label, (2 * batch, 1), &Device::Cpu)?;
        let label = Values::OneHot {
            index,
            classes: pixels,
            strength: 2.,
        };
        Input::beside(&[below, Input::new(vec![label], batch, 2, &[pixels])?])?.shaped(&shape)
    }

    pub fn assert_close(found: &Tensor, expected: &Tensor, what: &str) -> Result<()> {
        let difference = (found.to_dtype(DType::F64)? - expected)?
            .abs()?
            .flatten_all()?
            .max(0)?;
        let difference = difference.to_scalar::<f64>()?;
        assert!(difference < 1e-4, "{what}: {difference}");
        Ok(())
    }

    /// Tests grids narrower and wider than a vector, and as wide; adjacent fields, and
    /// strides larger than a field; more rows than one block.
    #[test]
    fn parts_are_multiplied_as_if_they_were_joined() -> Result<()> {
        let sizes = [
            (21, 1, 3, 0),
            (21, 2, 3, 0),
            (21, 3, 3, 0),
            (45, 5, 2, 0),
            (5, 1, 3, 0),
            (15, 1, 35, 0),
            (21, 1, 3, 5),
        ];
        for (width, stride, batch, split) in sizes {
            for units in [1, 3, 5, simd::MOST_UNITS + 1] {
                let shape = [3, 6, width];
                let fields = Fields::new(shape, 4, stride, 2)?;
                let (fast, plain) = (
                    local(DType::F32, &fields, units)?,
                    local(DType::F64, &fields, units)?,
                );
                let input = |dtype| views(dtype, batch, shape, split);
                let (x, double) = (input(DType::F32)?, input(DType::F64)?);
                let what = format!(
                    "{width} pixels, stride {stride}, {units} units, {batch} examples, \
                     {split} columns"
                );
                let expected = plain.forward(&double)?;
                // Later calls use cached sums.
                for _ in 0..3 {
                    assert_close(&fast.forward(&x)?, &expected, &what)?;
                }
                let found = fast.gradients(&x, &expected.to_dtype(DType::F32)?)?;
                let expected = plain.gradients(&double, &expected)?;
                found
                    .iter()
                    .zip(&expected)
                    .try_for_each(|(found, expected)| assert_close(found, expected, &what))?;
            }
        }
        Ok(())
    }

    #[test]
    fn cached_sums_are_recomputed_after_weights_were_restored() -> Result<()> {
        let fields = Fields::new([3, 6, 21], 4, 1, 2)?;
        let (local, other) = (
            local(DType::F32, &fields, 3)?,
            local(DType::F32, &fields, 3)?,
        );
        let x = views(DType::F32, 3, [3, 6, 21], 0)?;
        local.forward(&x)?;
        other.weight.1.set(&(other.weight.1.as_tensor() * -1.)?)?;
        local.vars.restore(
            &other
                .vars
                .all()
                .into_iter()
                .map(|(name, var)| (name, var.as_detached_tensor()))
                .collect(),
        )?;
        assert_close(
            &local.forward(&x)?,
            &other.forward(&x)?.to_dtype(DType::F64)?,
            "after reading",
        )
    }
}
