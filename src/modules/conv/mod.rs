//! A convolution with optional max pooling that learns in closed form.

mod tiles;
mod tracked;

use std::sync::Arc;

use candle_core::{Tensor, Var};
use candle_nn::Init;
use rayon::prelude::*;

use self::tiles::{plain_pool, plain_spread, spread};
pub use self::tracked::conv2d;
use crate::error::{Error, Result};
use crate::flow::graph::{Graph, Node};
use crate::flow::step::Step;
use crate::flow::vars::Vars;
use crate::kernels::fields::Fields;
use crate::kernels::gemm::{accumulate_here, Factor, Matrix, Right};
use crate::kernels::sizes::Sizes;
use crate::kernels::{self, fresh_pieces, with_values};
use crate::optim::{Gradient, Optimiser};

/// A convolution with max pooling, `y = pool(x ∗ W)`: stride 1, padded with zeros so that
/// `x ∗ W` has the height and width of `x`.
///
/// | tensor | shape                  | meaning                           |
/// |--------|------------------------|-----------------------------------|
/// | `x`    | `(R, C, H, W)`         | images                            |
/// | `W`    | `(N, C, K, K)`         | the variable `weight`; `K` is odd |
/// | `y`    | `(R, N, ⌊H/P⌋, ⌊W/P⌋)` | maxima of `P×P` pixels, detached  |
///
/// The output and the gradient of the kernel are computed as matrix products with the
/// fields of a few hundred pixels at a time (im2col). [`Convolved`] stores the position
/// of each pool's maximum.
pub struct Conv {
    weight: (String, Var),
    pool: usize,
}

/// The output of [`Conv::forward`], with the data that [`Conv::update`] needs.
#[derive(Clone, Debug)]
pub struct Convolved {
    /// The output, `(R, N, ⌊H/P⌋, ⌊W/P⌋)`.
    pub output: Tensor,
    /// For every output, the index of the largest of its `P·P` pixels, row by row; empty
    /// without a pool.
    choice: Arc<Vec<u8>>,
    /// The same on a GPU.
    #[cfg(feature = "cuda")]
    choice_on_gpu: Option<Tensor>,
}

impl Convolved {
    /// The choices of the pools, wherever they are.
    fn choice(&self) -> Result<Arc<Vec<u8>>> {
        #[cfg(feature = "cuda")]
        if let Some(choice) = &self.choice_on_gpu {
            return Ok(Arc::new(choice.flatten_all()?.to_vec1::<u8>()?));
        }
        Ok(self.choice.clone())
    }

    fn new(output: Tensor, choice: Vec<u8>) -> Self {
        Self {
            output,
            choice: Arc::new(choice),
            #[cfg(feature = "cuda")]
            choice_on_gpu: None,
        }
    }
}

/// The largest number of parts of a batch whose gradients are computed separately and
/// added in order. It is constant, so that the bits do not depend on the number of
/// threads.
const PARTS: usize = 8;

impl Conv {
    /// A convolution with `units` kernels of `field` by `field` pixels on `inputs`
    /// channels, initialised with `init`.
    ///
    /// # Errors
    /// [`Error::Unfit`] if `field` is even or `pool` is not 1 to 15; errors of
    /// [`Vars::get`].
    pub fn new(
        vars: &Vars,
        inputs: usize,
        units: usize,
        field: usize,
        pool: usize,
        init: Init,
    ) -> Result<Self> {
        let path = vars.path("weight");
        check(&path, field, pool)?;
        let weight = vars.get("weight", (units, inputs, field, field), init)?;
        Ok(Self {
            weight: (path, weight),
            pool,
        })
    }

    /// The weights of each unit, `(N, C, K, K)`.
    pub fn weight_images(&self) -> Tensor {
        self.weight.1.as_detached_tensor()
    }

    /// The variable of the kernels, for a rule that changes it itself.
    pub fn weight(&self) -> &Var {
        &self.weight.1
    }

    /// The number of kernels, `N`.
    pub fn units(&self) -> usize {
        self.weight.1.dims()[0]
    }

    fn sizes(&self, x: &Tensor) -> Result<Sizes> {
        sizes(&self.weight.0, x, &self.weight.1, self.pool)
    }

    /// Computes `pool(x ∗ W)`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` is not `(R, C, H, W)`, or smaller than a pool.
    pub fn forward(&self, x: &Tensor) -> Result<Convolved> {
        convolve(x, &self.weight.1.as_detached_tensor(), &self.sizes(x)?)
    }

    /// Adds `pool(x ∗ W)` to a graph.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn graph(&self, x: Node, graph: &mut Graph) -> Result<Node> {
        let kernels = graph.variable(&self.weight.0, &self.weight.1)?;
        let sums = graph.conv(x, kernels);
        Ok(graph.max_pool(sums, self.pool))
    }

    /// The gradient with respect to `x`, `(R, C, H, W)`, given `delta`, the gradient with
    /// respect to the output `made` of [`Conv::forward`] for `x`.
    ///
    /// It is the convolution of `delta`, spread to the pixels that were the largest of
    /// their pools, with the kernels mirrored in both directions.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes do not match.
    pub fn input_gradient(&self, x: &Tensor, made: &Convolved, delta: &Tensor) -> Result<Tensor> {
        let sizes = self.sizes(x)?;
        self.check_delta(made, delta, &sizes)?;
        input_gradient(self.weight.1.as_tensor(), &made.choice()?, delta, &sizes)
    }

    fn check_delta(&self, made: &Convolved, delta: &Tensor, sizes: &Sizes) -> Result<()> {
        let (height, width) = sizes.out();
        let expected = [sizes.rows, sizes.units, height, width];
        for found in [made.output.dims(), delta.dims()] {
            if found != expected {
                return Err(Error::shape(&self.weight.0, found, format!("{expected:?}")));
            }
        }
        Ok(())
    }

    /// The gradient of the kernel, `(N, C, K, K)`, given `delta`, the gradient with
    /// respect to the output `made` of [`Conv::forward`] for `x`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes do not match.
    pub fn gradient(&self, x: &Tensor, made: &Convolved, delta: &Tensor) -> Result<Tensor> {
        let sizes = self.sizes(x)?;
        self.check_delta(made, delta, &sizes)?;
        #[cfg(feature = "cuda")]
        if kernels::cuda::is_fast(x) {
            let choice = made.choice_on_gpu.as_ref();
            let gradient = kernels::cuda::kernel_gradient(x, delta, choice, &sizes)?;
            return Ok(gradient.reshape(self.weight.1.shape())?);
        }
        if !(kernels::is_fast(x) && kernels::is_fast(delta)) {
            let delta = plain_spread(delta, &made.choice, &sizes)?
                .transpose(0, 1)?
                .contiguous()?;
            let x = x.transpose(0, 1)?.contiguous()?; // (C, R, H, W)
            let gradient = x.conv2d(&delta, sizes.field / 2, 1, 1, 1)?; // (C, N, K, K)
            return Ok(gradient.transpose(0, 1)?.contiguous()?);
        }
        kernel_gradient(x, &made.choice, delta, &sizes)
    }

    /// Updates the kernel; see [`Conv::gradient`].
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes do not match.
    pub fn update(
        &mut self,
        x: &Tensor,
        made: &Convolved,
        delta: &Tensor,
        optimiser: &mut Optimiser,
        step: &Step,
    ) -> Result<()> {
        let gradient = self.gradient(x, made, delta)?;
        optimiser.update(
            &self.weight.0,
            &self.weight.1,
            Gradient::Whole(&gradient),
            step,
        )
    }
}

/// Refuses a field without a middle, and pools that are too large to be numbered.
fn check(path: &str, field: usize, pool: usize) -> Result<()> {
    let problem = match (field % 2, pool) {
        (0, _) => format!("expected an odd `field` (1, 3, 5, …), found {field}"),
        (_, 0 | 16..) => format!("expected a `pool` of 1 to 15 pixels, found {pool}"),
        _ => return Ok(()),
    };
    Err(Error::unfit(path, problem))
}

fn sizes(path: &str, x: &Tensor, weight: &Tensor, pool: usize) -> Result<Sizes> {
    let (units, inputs, field, width_of_field) = weight.dims4()?;
    if field != width_of_field {
        let expected = "a square field (N, C, F, F)";
        return Err(Error::shape(path, weight.dims(), expected));
    }
    let fault = |expected: String| Err(Error::shape(path, x.dims(), expected));
    let &[rows, channels, height, width] = x.dims() else {
        return fault(format!("images (R, {inputs}, H, W)"));
    };
    if channels != inputs || height < pool || width < pool {
        return fault(format!(
            "images (R, {inputs}, H, W) of at least {pool} by {pool} pixels"
        ));
    }
    Ok(Sizes {
        rows,
        inputs,
        height,
        width,
        units,
        field,
        pool,
    })
}

/// The gradient of the kernels, `(N, C, K, K)`, in 32 bits on the CPU.
fn kernel_gradient(x: &Tensor, choices: &[u8], delta: &Tensor, sizes: &Sizes) -> Result<Tensor> {
    let shape = (sizes.units, sizes.inputs, sizes.field, sizes.field);
    let together = sizes.together();
    let (image, out_image) = (x.elem_count() / sizes.rows.max(1), sizes.out_image());
    let images = sizes.rows.div_ceil(PARTS).next_multiple_of(together); // of a part
    let parts = with_values(x, |x| {
        with_values(delta, |delta| {
            let part = |(index, x): (usize, &[f32])| {
                let mut sum = vec![0f32; sizes.units * sizes.numbers()];
                let (mut padded, mut room, mut tile) = (Vec::new(), Vec::new(), Vec::new());
                let mut first = index * images;
                for x in x.chunks((together * image).max(1)) {
                    let range = first * out_image..(first + x.len() / image) * out_image;
                    let choice = choices.get(range.clone()).unwrap_or(&[]);
                    sizes.pad(x, &mut padded);
                    for band in sizes.bands() {
                        let fields = Fields::new(sizes, &padded, band);
                        sizes.spread(&delta[range.clone()], choice, band, &mut tile);
                        let pixels = fields.pixels();
                        let tile = Matrix::of_rows(&tile, sizes.units, pixels, pixels);
                        let fields = Right {
                            fields: &fields,
                            is_transposed: true,
                            room: &mut room,
                        };
                        accumulate_here(&mut sum, 1., &Factor::new(tile), fields);
                    }
                    first += x.len() / image;
                }
                sum
            };
            x.par_chunks((images * image).max(1))
                .enumerate()
                .map(part)
                .collect::<Vec<_>>()
        })
    })??;
    let mut parts = parts.into_iter();
    let mut sum = parts
        .next()
        .unwrap_or_else(|| vec![0.; sizes.units * sizes.numbers()]);
    let rest: Vec<_> = parts.collect();
    kernels::for_rows(&mut sum, sizes.numbers(), |row, sum| {
        for part in &rest {
            sum.iter_mut()
                .zip(&part[row * sizes.numbers()..])
                .for_each(|(sum, part)| *sum += part);
        }
    });
    Ok(Tensor::from_vec(sum, shape, x.device())?)
}

/// The gradient of the images, `(R, C, H, W)`.
fn input_gradient(
    weight: &Tensor,
    choices: &[u8],
    delta: &Tensor,
    sizes: &Sizes,
) -> Result<Tensor> {
    let delta = spread(delta, choices, sizes)?;
    let mirrored = weight.detach().transpose(0, 1)?.contiguous()?;
    let sizes = Sizes {
        inputs: sizes.units,
        units: sizes.inputs,
        pool: 1,
        ..*sizes
    };
    Ok(convolve(&delta, &mirrored.flip(&[2, 3])?, &sizes)?.output)
}

/// `pool(x ∗ weight)`.
fn convolve(x: &Tensor, weight: &Tensor, sizes: &Sizes) -> Result<Convolved> {
    #[cfg(feature = "cuda")]
    if kernels::cuda::is_fast(x) {
        let (output, choice) = kernels::cuda::convolve(x, weight, sizes)?;
        return Ok(Convolved {
            choice_on_gpu: choice,
            ..Convolved::new(output, Vec::new())
        });
    }
    if !(kernels::is_fast(x) && kernels::is_fast(weight)) {
        let full = x.contiguous()?.conv2d(weight, sizes.field / 2, 1, 1, 1)?;
        let (output, choice) = plain_pool(&full, sizes)?;
        return Ok(Convolved::new(output, choice));
    }
    let (output, choice) = with_values(weight, |weight| {
        with_values(x, |x| convolve_values(x, weight, sizes))
    })??;
    let (height, width) = sizes.out();
    let output = Tensor::from_vec(output, (sizes.rows, sizes.units, height, width), x.device())?;
    Ok(Convolved::new(output, choice))
}

/// `pool(x ∗ weight)`, and the choices of the pools, in 32 bits on the CPU.
fn convolve_values(x: &[f32], weight: &[f32], sizes: &Sizes) -> (Vec<f32>, Vec<u8>) {
    let together = sizes.together();
    let (image, out_image) = (x.len() / sizes.rows.max(1), sizes.out_image());
    let count = sizes.rows * out_image;
    let mut choice = vec![0u8; if sizes.pool > 1 { count } else { 0 }];
    if x.is_empty() {
        return (vec![0.; count], choice);
    }
    // One choice for each output; none without a pool.
    let choices = if sizes.pool > 1 {
        (together * out_image).max(1)
    } else {
        1
    };
    let mut nothing = vec![0u8; sizes.rows.div_ceil(together)];
    let of_choice = if sizes.pool > 1 {
        &mut choice
    } else {
        &mut nothing
    };
    let weight = Matrix::of_rows(weight, sizes.units, sizes.numbers(), sizes.numbers());
    let weight = Factor::new(weight);
    let images = x.par_chunks((together * image).max(1));
    let out = fresh_pieces(
        count,
        together * out_image,
        images.zip(of_choice.par_chunks_mut(choices)),
        || (Vec::new(), Vec::new(), Vec::new()),
        |(padded, room, tile), out, (images, choice)| {
            sizes.pad(images, padded);
            for band in sizes.bands() {
                let fields = Fields::new(sizes, padded, band);
                tile.resize(sizes.units * fields.pixels(), 0f32);
                let fields = Right {
                    fields: &fields,
                    is_transposed: false,
                    room,
                };
                accumulate_here(tile, 0., &weight, fields);
                sizes.pool(tile, band, out, choice);
            }
        },
    );
    (out, choice)
}

#[cfg(test)]
mod tests;
