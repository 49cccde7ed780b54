//! The moments of batch normalisation.

use candle_core::{Tensor, Var};
use candle_nn::Init;

use crate::error::{Error, Result};
use crate::flow::step::Step;
use crate::flow::vars::Vars;
use crate::kernels::{scalar, ChannelStats};

/// Running means of the mean and the variance of each channel: `m ← keep·m + (1 − keep)·mean`.
///
/// | tensor | shape  |                                             |
/// |--------|--------|---------------------------------------------|
/// | `m`    | `(N,)` | the buffer `running_mean`, starts at 0      |
/// | `v`    | `(N,)` | the buffer `running_variance`, starts at 1  |
pub struct RunningMoments {
    mean: Var,
    variance: Var,
    keep: f64,
}

/// Mean and variance, and whether they are fixed instead of those of the batch.
pub type Moments = (ChannelStats, bool);

impl RunningMoments {
    /// Moments of `channels` channels, with their buffers at `vars`.
    ///
    /// # Errors
    /// As [`Vars::buffer`].
    pub fn new(vars: &Vars, channels: usize, keep: f64) -> Result<Self> {
        Ok(Self {
            mean: vars.buffer("running_mean", channels, Init::Const(0.))?,
            variance: vars.buffer("running_variance", channels, Init::Const(1.))?,
            keep,
        })
    }

    /// The running moments.
    pub fn fixed(&self) -> ChannelStats {
        ChannelStats {
            mean: self.mean.as_detached_tensor(),
            variance: self.variance.as_detached_tensor(),
            by_row: false,
        }
    }

    /// The moments by which `x`, `(R, N, …)`, is standardised: those of `x` where a layer
    /// will learn from it; else the running ones, by which a head and an evaluation see
    /// it.
    ///
    /// A single number less its own mean is 0.
    /// A last batch that is so small is standardised by the running moments.
    ///
    /// # Errors
    /// [`Error::Unfit`] if the first batch of a training is so small.
    pub fn of(&self, x: &Tensor, step: &Step) -> Result<Moments> {
        let numbers = x.elem_count() / x.dim(1)?.max(1);
        if step.has_lesson() && numbers > 1 {
            return Ok((ChannelStats::of(x, false)?, false));
        }
        if step.has_lesson() && self.is_untouched()? {
            let problem = "expected two or more numbers of each channel for batch \
                           normalisation, found one; set a larger `batch`, or another `norm`";
            return Err(Error::unfit("norm", problem));
        }
        Ok((self.fixed(), true))
    }

    /// Averages the moments of a batch into the running ones; fixed ones change nothing.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn average(&self, (now, is_fixed): &Moments) -> Result<()> {
        if *is_fixed {
            return Ok(());
        }
        let keep = self.keep;
        for (var, now) in [(&self.mean, &now.mean), (&self.variance, &now.variance)] {
            var.set(&((var.as_tensor() * keep)? + (now * (1. - keep))?)?.detach())?;
        }
        Ok(())
    }

    /// Whether nothing was averaged into them yet.
    fn is_untouched(&self) -> Result<bool> {
        let from_start = (self.mean.abs()? + (self.variance.as_tensor() - 1.)?.abs()?)?;
        Ok(scalar(&from_start.sum_all()?)? == 0.)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    fn moments() -> Result<RunningMoments> {
        RunningMoments::new(&Vars::new(1, DType::F64, &Device::Cpu), 2, 0.9)
    }

    fn values(moments: &RunningMoments) -> Result<[Vec<f64>; 2]> {
        let ChannelStats { mean, variance, .. } = moments.fixed();
        Ok([mean.to_vec1()?, variance.to_vec1()?])
    }

    #[test]
    fn a_last_batch_of_one_row_leaves_them_as_they_are() -> Result<()> {
        let (moments, step) = (moments()?, Step::first(1));
        let batch = Tensor::new(&[[1f64, 4.], [3., 4.]], &Device::Cpu)?;
        moments.average(&moments.of(&batch, &step)?)?;
        let [mean, variance] = values(&moments)?;
        let near = |a: f64, b: f64| (a - b).abs() < 1e-12;
        assert!(near(mean[0], 0.2) && near(mean[1], 0.4), "{mean:?}");
        assert!(
            near(variance[0], 1.) && near(variance[1], 0.9),
            "{variance:?}"
        );
        let last = moments.of(&batch.narrow(0, 0, 1)?, &step)?;
        assert!(last.1 && last.0.mean.to_vec1::<f64>()? == mean);
        moments.average(&last)?;
        assert_eq!(values(&moments)?, [mean, variance]);
        Ok(())
    }

    #[test]
    fn a_training_with_batches_of_one_row_is_refused() -> Result<()> {
        let (moments, step) = (moments()?, Step::first(1));
        let row = Tensor::new(&[[1f64, 4.]], &Device::Cpu)?;
        let error = moments.of(&row, &step).map(|_| ()).unwrap_err();
        let is_said = error.to_string().contains("a larger `batch`");
        assert!(error.is_unfit() && is_said, "{error}");
        // It can be evaluated, and is a map of several pixels.
        moments.of(&row, &Step::evaluation(1))?;
        moments.of(&row.reshape((1, 1, 2))?, &step)?;
        Ok(())
    }

    #[test]
    fn a_head_sees_what_an_evaluation_sees() -> Result<()> {
        let moments = moments()?;
        let neutral = Step {
            neutral: true,
            ..Step::first(1)
        };
        let batch = Tensor::new(&[[1f64, 4.], [3., 4.]], &Device::Cpu)?;
        let (found, is_fixed) = moments.of(&batch, &neutral)?;
        assert!(is_fixed && found.variance.to_vec1::<f64>()? == [1., 1.]);
        Ok(())
    }
}
