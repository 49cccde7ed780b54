//! Fields that are moved over images, each place with weights of its own: local receptive fields.

mod narrow;

use candle_core::{Tensor, Var};
use candle_nn::Init;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::input::Values;
use crate::ops::gemm::{accumulate_here, Matrix};
use crate::ops::{self, with_rows, with_values};
use crate::optim::{Delta, Gradient, Optimiser, Product};
use crate::seed::Step;
use crate::vars::Vars;

/// The building block of layers with local receptive fields: as a convolution, but weights are not shared.
///
/// `y[r, n, l] = Σ_f field(x)[r, l, f]·W[l, f, n] + b[l, n]`, location `l` of `L = gridₕ·grid_w` seeing all channels of
/// the `field×field` pixels that begin at `stride` times its place in the grid; zeros beyond the border.
///
/// | tensor | shape                    |                                                  |
/// |--------|--------------------------|--------------------------------------------------|
/// | `x`    | `(R, C, H, W)`           |                                                  |
/// | `W`    | `(L, C·field², N)`       | the variable `weight`                            |
/// | `b`    | `(L, N)`                 | the variable `bias`                              |
/// | `y`    | `(R, N, gridₕ, grid_w)`  | not attached to the variables                    |
///
/// A location costs `2·R·C·field²·N` operations forward and as many for its weight's gradient: one matrix product each,
/// with nothing multiplied that is not in its field; where there are few units at a place, sums over the batch instead.
pub struct Local {
    weight: (String, Var),
    bias: (String, Var),
    fields: Fields,
}

/// No fields have more numbers in all: a size with a few zeros too many is a slip, not a wish.
const LARGEST: usize = 1 << 28;

/// What each location sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    /// Which number of an image, `(C, H, W)` read as one line, is number `f` of the field of location `l`: entry
    /// `l·F + f`; one beyond the last stands for the zeros beyond the border.
    index: Vec<u32>,
    image: [usize; 3],
    /// Height and width of the grid of locations.
    grid: [usize; 2],
    /// Height and width of a field.
    field: usize,
}

impl Fields {
    /// Fields of `field×field` pixels, `stride` pixels apart, over images `[C, H, W]` with `padding` zeros around them.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if a field is larger than the image with its padding, or not larger than the padding; if the
    /// stride is 0, or if the fields have absurdly many numbers in all.
    pub fn new(image: [usize; 3], field: usize, stride: usize, padding: usize) -> Result<Self> {
        let [channels, height, width] = image;
        // A field that could lie beyond the border as a whole would see nothing.
        let most = height.min(width).saturating_add(padding.saturating_mul(2));
        if stride == 0 || channels == 0 || !(1..=most).contains(&field) || padding >= field {
            let problem = format!(
                "fields of {field}×{field} pixels, {stride} apart, have no place in images of {height}×{width} with \
                 {padding} zeros around them: `field` at most {most}, `padding` less than `field`, `stride` at least 1"
            );
            return Err(Error::Mismatch { place: "local receptive fields".into(), problem });
        }
        let places = |size: usize| (size + 2 * padding - field) / stride + 1;
        let (grid, beyond) = ([places(height), places(width)], (channels * height * width) as u32);
        let numbers = channels.saturating_mul(field.saturating_mul(field));
        let entries = numbers.saturating_mul(grid[0].saturating_mul(grid[1]));
        if entries > LARGEST {
            let problem = format!(
                "{}×{} fields of {numbers} numbers are too many; a smaller `field` or a larger `stride` is needed",
                grid[0], grid[1]
            );
            return Err(Error::Mismatch { place: "local receptive fields".into(), problem });
        }
        let mut index = Vec::with_capacity(entries);
        for location in 0..grid[0] * grid[1] {
            let (top, left) = (location / grid[1] * stride, location % grid[1] * stride);
            for number in 0..numbers {
                let (channel, place) = (number / (field * field), number % (field * field));
                let row = (top + place / field).checked_sub(padding).filter(|&row| row < height);
                let column = (left + place % field).checked_sub(padding).filter(|&column| column < width);
                let at = row.zip(column).map(|(row, column)| ((channel * height + row) * width + column) as u32);
                index.push(at.unwrap_or(beyond));
            }
        }
        Ok(Self { index, image, grid, field })
    }

    /// Height and width of the grid of locations.
    pub fn grid(&self) -> [usize; 2] {
        self.grid
    }

    /// The numbers in a field: `C·field²`.
    pub fn numbers(&self) -> usize {
        self.image[0] * self.field * self.field
    }

    fn locations(&self) -> usize {
        self.grid[0] * self.grid[1]
    }

    /// The fields of all rows at a location, `(R, F)`.
    fn at(&self, location: usize, images: &ops::Rows<'_>, out: &mut Vec<f32>) {
        out.resize(images.rows * self.numbers(), 0.);
        let index = &self.index[location * self.numbers()..][..self.numbers()];
        for (row, out) in out.chunks_exact_mut(self.numbers()).enumerate() {
            let image = images.row(row);
            out.iter_mut().zip(index).for_each(|(out, &at)| *out = image.get(at as usize).copied().unwrap_or(0.));
        }
    }

    /// All fields by candle's operations, `(L, R, F)`.
    fn plain(&self, images: &Tensor) -> Result<Tensor> {
        let rows = images.dim(0)?;
        let index = Tensor::from_slice(&self.index, self.index.len(), images.device())?;
        let lines = images.flatten_from(1)?.pad_with_zeros(1, 0, 1)?;
        let fields = lines.index_select(&index, 1)?.reshape((rows, self.locations(), self.numbers()))?;
        Ok(fields.transpose(0, 1)?.contiguous()?)
    }
}

impl Local {
    /// A new one: `units` channels at each location, weights drawn by `init`, biases of zero.
    ///
    /// # Errors
    /// As [`Vars::get`].
    pub fn new(vars: &Vars, fields: Fields, units: usize, init: Init) -> Result<Self> {
        let shape = (fields.locations(), fields.numbers(), units);
        let weight = (vars.path("weight"), vars.get("weight", shape, init)?);
        let bias = (vars.path("bias"), vars.get("bias", fields.locations() * units, Init::Const(0.))?);
        Ok(Self { weight, bias, fields })
    }

    /// The weights of each unit of each location, `(L·N, C, field, field)`, unit after unit.
    ///
    /// # Errors
    /// Whatever candle refuses.
    pub fn features(&self) -> Result<Tensor> {
        let (locations, _, units) = self.weight.1.dims3()?;
        let (channels, field) = (self.fields.image[0], self.fields.field);
        let rows = self.weight.1.as_detached_tensor().transpose(1, 2)?.contiguous()?;
        Ok(rows.reshape((locations * units, channels, field, field))?)
    }

    fn sizes(&self, x: &Tensor) -> Result<(usize, usize, usize)> {
        let [channels, height, width] = self.fields.image;
        if x.rank() < 2 || x.elem_count() != x.dim(0)? * channels * height * width {
            let (found, expected) = (x.dims().to_vec(), format!("images (R, {channels}, {height}, {width})"));
            return Err(Error::Shape { place: self.weight.0.clone(), found, expected });
        }
        Ok((x.dim(0)?, self.fields.locations(), self.weight.1.dim(2)?))
    }

    /// `max(0, y)`, `(R, N, gridₕ, grid_w)`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` is not what the fields were made for.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (rows, locations, units) = self.sizes(x)?;
        let shape = (rows, units, self.fields.grid[0], self.fields.grid[1]);
        if !(ops::is_fast(x) && ops::is_fast(&self.weight.1)) {
            let product = self.fields.plain(x)?.matmul(&self.weight.1.as_detached_tensor())?; // (L, R, N)
            let bias = self.bias.1.as_detached_tensor().reshape((locations, 1, units))?;
            let sum = product.broadcast_add(&bias)?.relu()?;
            return Ok(sum.permute((1, 2, 0))?.contiguous()?.reshape(shape)?);
        }
        let bias = self.bias.1.to_vec1::<f32>()?;
        // Not `max`, which would hide what is no number.
        let relu = |sum: f32| if sum < 0. { 0. } else { sum };
        if units <= narrow::MOST_UNITS {
            let finish = |column: usize, sum: f32| relu(sum + bias[column % locations * units + column / locations]);
            let out = with_values(&self.weight.1, |weight| {
                with_rows(x, |x| narrow::forward(&self.fields, &x, weight, units, finish))
            })??;
            return Ok(Tensor::from_vec(out, shape, x.device())?);
        }
        let products = with_values(&self.weight.1, |weight| {
            with_rows(x, |x| {
                let product = |fields: &mut Vec<f32>, location: usize| {
                    self.fields.at(location, &x, fields);
                    let weight = &weight[location * self.fields.numbers() * units..];
                    let weight = Matrix::of_rows(weight, self.fields.numbers(), units, units);
                    let mut product = vec![0f32; rows * units];
                    let fields = Matrix::of_rows(fields, rows, self.fields.numbers(), self.fields.numbers());
                    accumulate_here(&mut product, 0., fields, weight);
                    product
                };
                (0..locations).into_par_iter().map_init(Vec::new, product).collect::<Vec<_>>()
            })
        })??;
        let mut out = vec![0f32; rows * units * locations];
        ops::for_rows(&mut out, units * locations, |row, out| {
            for (location, product) in products.iter().enumerate() {
                let (product, bias) = (&product[row * units..][..units], &bias[location * units..][..units]);
                for ((out, product), bias) in out[location..].iter_mut().step_by(locations).zip(product).zip(bias) {
                    *out = relu(product + bias);
                }
            }
        });
        Ok(Tensor::from_vec(out, shape, x.device())?)
    }

    /// The gradients of weight and bias, `(L, F, N)` and `(L·N,)`; `delta`, `(R, N, gridₕ, grid_w)` or flattened, is that
    /// of `y`; see [`Linear::learn`](crate::Linear::learn) for rows of it that are zero.
    ///
    /// # Errors
    /// [`Error::Shape`] if they do not fit.
    pub fn gradients(&self, x: &Tensor, delta: impl Into<Delta>) -> Result<[Tensor; 2]> {
        let (rows, locations, units) = self.sizes(x)?;
        let delta = delta.into().flattened()?;
        if delta.dims() != [rows, units * locations] {
            let expected = format!("({rows}, {units}, {}, {})", self.fields.grid[0], self.fields.grid[1]);
            return Err(Error::Shape { place: self.weight.0.clone(), found: delta.dims().to_vec(), expected });
        }
        let of_bias = delta.column_sums()?.reshape((units, locations))?.t()?.contiguous()?.flatten_all()?;
        let Product { values, delta } = Product { values: Values::dense(x.clone())?, delta }.packed()?;
        let (x, delta) = (values.to_matrix(x.dtype())?, delta.whole()?);
        Ok([self.gradient(&x, &delta)?, of_bias])
    }

    /// That of the weight; `x`, `(R, C·H·W)`, and `delta`, `(R, N·L)`.
    fn gradient(&self, x: &Tensor, delta: &Tensor) -> Result<Tensor> {
        let (rows, locations, units) = self.sizes(x)?;
        if rows == 0 {
            return Ok(self.weight.1.zeros_like()?.detach());
        }
        if !(ops::is_fast(x) && ops::is_fast(delta)) {
            let delta = delta.reshape((rows, units, locations))?.permute((2, 0, 1))?.contiguous()?; // (L, R, N)
            let fields = self.fields.plain(x)?.transpose(1, 2)?.contiguous()?;
            return Ok(fields.matmul(&delta)?);
        }
        if units <= narrow::MOST_UNITS {
            let gradient =
                with_rows(delta, |delta| with_rows(x, |x| narrow::gradient(&self.fields, &x, &delta, units)))??;
            return Ok(Tensor::from_vec(gradient, self.weight.1.shape(), x.device())?);
        }
        let size = self.fields.numbers() * units;
        let mut gradient = vec![0f32; locations * size];
        with_rows(delta, |delta| {
            with_rows(x, |x| {
                let learn = |(fields, here): &mut (Vec<f32>, Vec<f32>), (location, out): (usize, &mut [f32])| {
                    self.fields.at(location, &x, fields);
                    here.clear();
                    for row in 0..rows {
                        here.extend(delta.row(row)[location..].iter().step_by(locations));
                    }
                    let here = Matrix::of_rows(here, rows, units, units);
                    let fields = Matrix::of_rows(fields, rows, self.fields.numbers(), self.fields.numbers());
                    accumulate_here(out, 0., fields.transposed(), here);
                };
                gradient.par_chunks_exact_mut(size).enumerate().for_each_init(Default::default, learn);
            })
        })??;
        Ok(Tensor::from_vec(gradient, self.weight.1.shape(), x.device())?)
    }

    /// One step of weight and bias; see [`Local::gradients`].
    ///
    /// # Errors
    /// [`Error::Shape`] if the arguments do not fit.
    pub fn learn(&mut self, x: &Tensor, delta: impl Into<Delta>, optimiser: &mut Optimiser, step: &Step) -> Result<()> {
        let [weight, bias] = self.gradients(x, delta)?;
        optimiser.learn(&self.weight.0, &self.weight.1, Gradient::Whole(&weight), step)?;
        optimiser.learn(&self.bias.0, &self.bias.1, Gradient::Whole(&bias), step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    fn numbers(shape: &[usize], seed: u64) -> Result<Tensor> {
        let mut rng = crate::seed::stream(seed, "test", 0);
        let count = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|_| crate::seed::unit(&mut rng) as f32 - 0.5).collect();
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
    }

    fn local(dtype: DType, fields: &Fields, units: usize) -> Result<Local> {
        let vars = Vars::new(3, dtype, &Device::Cpu);
        Local::new(&vars, fields.clone(), units, Init::Randn { mean: 0., stdev: 0.5 })
    }

    /// With the same weights everywhere it is a convolution, and candle has one.
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
            local.weight.1.set(&shared.broadcast_as(local.weight.1.shape())?.contiguous()?)?;
            let expected = x.conv2d(&kernel, padding, stride, 1, 1)?.relu()?;
            let difference = (local.forward(&x)? - expected)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
            assert!(difference < 1e-5, "{difference}");
        }
        Ok(())
    }

    /// Few units, a block of them and more, more than are taken as few; rows that fill vectors, and that do not.
    #[test]
    fn both_forms_and_autograd_agree() -> Result<()> {
        let fields = Fields::new([2, 9, 8], 4, 3, 1)?;
        assert_eq!((fields.grid(), fields.numbers()), ([3, 3], 32));
        for (rows, units) in [(5, 3), (1, 1), (48, 4), (75, 5), (20, narrow::MOST_UNITS + 1)] {
            let x = numbers(&[rows, 2, 9, 8], 1)?;
            let double = local(DType::F64, &fields, units)?;
            // The definition, through autograd.
            let product = fields.plain(&x.to_dtype(DType::F64)?)?.matmul(&double.weight.1)?;
            let sum = product.broadcast_add(&double.bias.1.reshape((9, 1, units))?)?.relu()?;
            let activity = sum.permute((1, 2, 0))?.contiguous()?.reshape((rows, units, 3, 3))?;
            let gradients = (activity.sqr()?.sum_all()? * 0.5)?.backward()?;
            for dtype in [DType::F32, DType::F64] {
                let local = local(dtype, &fields, units)?;
                let x = x.to_dtype(dtype)?;
                let found = local.forward(&x)?;
                let [weight, bias] = local.gradients(&x, &found)?;
                let expected =
                    [&double.weight.1, &double.bias.1].map(|var| gradients.get(var).expect("it depends on it"));
                for (found, expected) in [(&found, &activity), (&weight, expected[0]), (&bias, expected[1])] {
                    let difference = (found.to_dtype(DType::F64)? - expected)?.abs()?.flatten_all()?.max(0)?;
                    let difference = difference.to_scalar::<f64>()?;
                    assert!(difference < 1e-4, "{rows} rows, {units} units, {dtype:?}: {difference}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn rows_of_zeros_and_what_rows_have_in_common_make_no_difference() -> Result<()> {
        let fields = Fields::new([2, 9, 8], 4, 3, 1)?;
        for units in [3, narrow::MOST_UNITS + 1] {
            let (local, x) = (local(DType::F32, &fields, units)?, numbers(&[40, 2, 9, 8], 1)?);
            for (kept, common) in [(2, true), (0, true), (2, false), (0, false)] {
                let few = numbers(&[kept, units * 9], 2)?.pad_with_zeros(0, 40 - kept, 0)?;
                let mut delta = Delta::from(few);
                if common {
                    delta = delta.with_common(&numbers(&[units * 9], 3)?, 20)?;
                }
                let whole = delta.whole()?.to_dtype(DType::F64)?;
                let expected = local.gradient(&x.to_dtype(DType::F64)?.flatten_from(1)?, &whole)?;
                let [found, _] = local.gradients(&x, delta)?;
                let difference = (found.to_dtype(DType::F64)? - expected)?.abs()?.flatten_all()?.max(0)?;
                assert!(difference.to_scalar::<f64>()? < 1e-5, "{units} units, {kept} rows, common: {common}");
            }
        }
        Ok(())
    }

    #[test]
    fn fields_without_a_place_are_refused() {
        for (field, stride, padding) in [
            (10, 1, 0),
            (3, 0, 0),
            (0, 1, 0),
            (13, 1, 2),
            (3, 1, 3),
            (usize::MAX, 1, usize::MAX),
            (3, 1, usize::MAX / 2 + 1),
        ] {
            let error = Fields::new([1, 8, 9], field, stride, padding).unwrap_err().to_string();
            assert!(error.contains("8×9") && error.contains("`field` at most"), "{error}");
        }
        let error = Fields::new([3, 10_000, 10_000], 99, 1, 0).unwrap_err().to_string();
        assert!(error.contains("too many"), "{error}");
        assert_eq!(Fields::new([1, 28, 28], 10, 6, 0).unwrap().grid(), [4, 4]);
    }
}
