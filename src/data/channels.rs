//! Standardisation of image channels, or of the columns of rows of numbers, with the
//! statistics of the training part.

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::Init;

use crate::data::{Content, DataSet};
use crate::error::{Error, Result};
use crate::flow::batch::Batch;
use crate::flow::examples::{spread, Examples};
use crate::flow::vars::Vars;
use crate::kernels;

/// Mean and standard deviation over the training part: of every channel of images
/// `(C, H, W)`, of every column of rows of numbers `(D,)`. They are saved with the
/// network, which needs them for every prediction.
#[derive(Clone)]
pub(crate) struct Channels {
    mean: Var,
    deviation: Var,
}

/// The numbers that are read at a time; in double precision they take 2 MB.
const AT_ONCE: usize = 1 << 18;

/// The examples that are read, at most: then a mean is known to a hundredth of the
/// deviation.
const AT_MOST: usize = 10_000;

impl Channels {
    /// The channels or columns of the training part of `data`. Without data they are
    /// restored from a checkpoint later.
    pub fn new(vars: &Vars, data: &DataSet) -> Result<Self> {
        let count = match (&data.spec.shape[..], data.spec.content) {
            (&[count] | &[count, _, _], Content::Picture(_)) => count,
            (shape, content) => {
                let found = match content {
                    Content::Text => "text".into(),
                    Content::Picture(_) => format!("shape {shape:?}"),
                };
                let expected = "images (channels, height, width) or rows of numbers (columns)";
                let problem = format!(
                    "`standardise` expects {expected}, found {found}; set `standardise=false`"
                );
                return Err(Error::usage("data", problem));
            }
        };
        let this = Self {
            mean: vars.buffer("mean", count, Init::Const(0.))?,
            deviation: vars.buffer("deviation", count, Init::Const(1.))?,
        };
        if data.train.is_empty() {
            return Ok(this);
        }
        let moments = moments(&*data.train, count)?;
        for (var, values) in [&this.mean, &this.deviation].into_iter().zip(moments) {
            let values = Tensor::from_vec(values, count, &Device::Cpu)?;
            var.set(&values.to_dtype(var.dtype())?.to_device(var.device())?)?;
        }
        Ok(this)
    }

    /// Computes `(x − mean) / deviation` for each channel or column.
    pub fn standardise(&self, batch: &Batch) -> Result<Batch> {
        let moments = [&self.mean, &self.deviation].map(Var::as_detached_tensor);
        let examples = kernels::standardise(batch.examples(), &moments[0], &moments[1])?;
        match batch.labels() {
            Ok(labels) => Batch::new(examples, labels.to_vec()),
            Err(_) => Batch::unlabelled(examples),
        }
    }
}

/// Means and deviations of the channels of images, or of the columns of rows of numbers.
///
/// They may have any unit, such as years or bytes, so numbers are taken in double
/// precision and relative to the first one.
fn moments(examples: &dyn Examples, channels: usize) -> Result<[Vec<f64>; 2]> {
    // (B, C, P), with one place for a column.
    let read = |indices: &[usize]| -> Result<Tensor> {
        let batch = examples.batch(indices, None)?;
        let numbers = batch.examples().to_dtype(DType::F64)?;
        Ok(numbers.reshape((indices.len(), channels, ()))?)
    };
    let one = read(&[0])?;
    let first = one.narrow(2, 0, 1)?; // (1, C, 1)
    let sum_of = |x: Tensor| -> Result<Vec<f64>> { Ok(x.sum(2)?.sum(0)?.to_vec1()?) };
    let at_once = (AT_ONCE / one.elem_count().max(1)).max(1);
    let (mut sums, mut squares, mut count) = (vec![0.; channels], vec![0.; channels], 0);
    for indices in spread(examples.len(), AT_MOST).chunks(at_once) {
        let numbers = read(indices)?.broadcast_sub(&first)?;
        count += numbers.elem_count() / channels;
        let found = [sum_of(numbers.clone())?, sum_of(numbers.sqr()?)?];
        for (all, found) in [&mut sums, &mut squares].into_iter().zip(found) {
            all.iter_mut().zip(found).for_each(|(all, x)| *all += x);
        }
    }
    let first = first.flatten_all()?.to_vec1::<f64>()?;
    let channels = first.into_iter().zip(sums.into_iter().zip(squares));
    let moments = channels.map(|(first, (sum, squares))| {
        let mean = sum / count as f64;
        let variance = (squares / count as f64 - mean * mean).max(0.);
        let mean = first + mean;
        // One whose numbers are all alike, but for rounding, becomes zero.
        let is_constant = variance.sqrt() <= 1e-7 * mean.abs();
        (mean, if is_constant { 1. } else { variance.sqrt() })
    });
    let (mean, deviation) = moments.unzip();
    Ok([mean, deviation])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::data::numbers::Numbers;
    use crate::data::{ExampleSpec, Framing};

    fn data(values: Vec<f32>, shape: &[usize]) -> Result<DataSet> {
        let count = values.len() / shape.iter().product::<usize>();
        let classes = vec!["a".to_string(), "b".to_string()];
        let spec = ExampleSpec::new(shape, classes, Content::Picture(Framing::Whole));
        let train = Numbers::new(values, vec![0; count], shape)?;
        Ok(DataSet {
            train: Arc::new(train),
            ..DataSet::empty(spec, None)
        })
    }

    #[test]
    fn every_column_of_rows_is_standardised_in_its_own_unit() -> Result<()> {
        // Years, parts of a million, and a constant.
        let rows = vec![1900f32, 1e-6, 7., 2000., 3e-6, 7.];
        let data = data(rows, &[3])?;
        let vars = Vars::new(1, DType::F32, &Device::Cpu);
        let channels = Channels::new(&vars, &data)?;
        let batch = data.train.batch(&[0, 1], None)?;
        let found = channels.standardise(&batch)?;
        let found = found.examples().to_vec2::<f32>()?;
        for (found, expected) in found.iter().flatten().zip([-1., -1., 0., 1., 1., 0.]) {
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
        Ok(())
    }

    #[test]
    fn every_channel_of_images_is_standardised() -> Result<()> {
        let data = data(vec![1., 3., 5., 5.], &[2, 1, 2])?;
        let vars = Vars::new(1, DType::F32, &Device::Cpu);
        let channels = Channels::new(&vars, &data)?;
        let found = channels.standardise(&data.train.batch(&[0], None)?)?;
        let found = found.examples().flatten_all()?.to_vec1::<f32>()?;
        assert_eq!(found, [-1., 1., 0., 0.]);
        Ok(())
    }

    #[test]
    fn images_in_any_unit_are_standardised() -> Result<()> {
        for (unit, zero) in [(1e-6, 0.), (1., 10_000.), (1., -3.)] {
            let numbers = [-1f32, 1.].repeat(6000);
            let numbers = numbers.iter().map(|x| x * unit + zero).collect();
            let data = data(numbers, &[1, 2, 2])?;
            let vars = Vars::new(1, DType::F32, &Device::Cpu);
            let channels = Channels::new(&vars, &data)?;
            let found = channels.standardise(&data.train.batch(&[0], None)?)?;
            for (found, expected) in found
                .examples()
                .flatten_all()?
                .to_vec1::<f32>()?
                .iter()
                .zip([-1., 1., -1., 1.])
            {
                assert!(
                    (found - expected).abs() < 1e-4,
                    "{unit}, {zero}: {found} {expected}"
                );
            }
        }
        Ok(())
    }

    #[test]
    fn other_shapes_are_refused_with_those_that_are_known() -> Result<()> {
        let vars = Vars::new(1, DType::F32, &Device::Cpu);
        let error = Channels::new(&vars, &data(vec![0.; 8], &[2, 2])?).err();
        let error = error.expect("it is refused").to_string();
        assert!(
            error.contains("rows of numbers (columns), found shape [2, 2]"),
            "{error}"
        );
        Ok(())
    }
}
