//! Standardisation of image channels with the statistics of the training part.

use candle_core::{Tensor, Var, D};
use candle_nn::Init;

use crate::data::{Content, DataSet};
use crate::error::{Error, Result};
use crate::flow::batch::Batch;
use crate::flow::vars::Vars;

/// Mean and standard deviation of every channel over the training part. They are saved
/// with the network, which needs them for every prediction.
pub(crate) struct Channels {
    mean: Var,
    deviation: Var,
}

/// The number of images that are read at a time, and in total. With these the means are
/// known to one part in a thousand.
const AT_ONCE: usize = 500;
const AT_MOST: usize = 10_000;

impl Channels {
    /// The channels of the training part of `data`. Without data they are restored from a
    /// checkpoint later.
    pub fn new(vars: &Vars, data: &DataSet) -> Result<Self> {
        let (&[channels, _, _], Content::Picture(_)) = (&data.spec.shape[..], data.spec.content)
        else {
            return Err(Error::usage(
                "data",
                format!(
                    "`standardise` expects images (channels, height, width), found shape \
                     {:?}",
                    data.spec.shape
                ),
            ));
        };
        let this = Self {
            mean: vars.buffer("mean", channels, Init::Const(0.))?,
            deviation: vars.buffer("deviation", channels, Init::Const(1.))?,
        };
        let count = data.train.len().min(AT_MOST);
        if count == 0 {
            return Ok(this);
        }
        let (mut sum, mut squares) = (vec![0f64; channels], vec![0f64; channels]);
        // Evenly spaced: files may be sorted by class.
        let indices: Vec<usize> = (0..count)
            .map(|index| index * data.train.len() / count)
            .collect();
        for indices in indices.chunks(AT_ONCE) {
            let images = data
                .train
                .batch(indices, None)?
                .examples()
                .flatten_from(2)?; // (B, C, P)
            let of = |x: Tensor| -> Result<Vec<f32>> {
                Ok(x.mean(D::Minus1)?.sum(0)?.to_vec1::<f32>()?)
            };
            let (means, of_squares) = (of(images.clone())?, of(images.sqr()?)?);
            for channel in 0..channels {
                sum[channel] += f64::from(means[channel]);
                squares[channel] += f64::from(of_squares[channel]);
            }
        }
        let mean: Vec<f64> = sum.iter().map(|sum| sum / count as f64).collect();
        let variance = squares
            .iter()
            .zip(&mean)
            .map(|(square, mean)| square / count as f64 - mean * mean);
        // A constant channel becomes zero.
        let deviation: Vec<f64> = variance.map(|variance| variance.max(1e-8).sqrt()).collect();
        for (var, values) in [(&this.mean, mean), (&this.deviation, deviation)] {
            let values = Tensor::from_vec(values, channels, &candle_core::Device::Cpu)?;
            var.set(&values.to_dtype(var.dtype())?.to_device(var.device())?)?;
        }
        Ok(this)
    }

    /// Computes `(x − mean) / deviation` for each channel.
    pub fn standardise(&self, batch: &Batch) -> Result<Batch> {
        let spread =
            |var: &Var| -> Result<Tensor> { Ok(var.as_detached_tensor().reshape((1, (), 1, 1))?) };
        let plain = || -> Result<Tensor> {
            let centred = batch.examples().broadcast_sub(&spread(&self.mean)?)?;
            Ok(centred.broadcast_div(&spread(&self.deviation)?)?)
        };
        #[cfg(feature = "cuda")]
        let images = match crate::kernels::cuda::is_fast(batch.examples()) {
            true => {
                let (mean, deviation) = (self.mean.as_tensor(), self.deviation.as_tensor());
                crate::kernels::cuda::standardise(batch.examples(), mean, deviation)?
            }
            false => plain()?,
        };
        #[cfg(not(feature = "cuda"))]
        let images = plain()?;
        match batch.labels() {
            Ok(labels) => Batch::new(images, labels.to_vec()),
            Err(_) => Batch::unlabelled(images),
        }
    }
}
