//! The contract of a goodness function.

use candle_core::{Tensor, Var};

use crate::error::Result;
use crate::flow::step::Step;
use crate::optim::Optimiser;

crate::choices! {
    /// Which activity counts as good.
    pub enum Positive {
        /// High activity for positive views.
        High = "high",
        /// Low activity for positive views: the goodness and its threshold change their sign.
        Low = "low",
    }
}

impl Positive {
    /// 1 or −1.
    pub fn sign(self) -> f64 {
        match self {
            Self::High => 1.,
            Self::Low => -1.,
        }
    }
}

/// How good a layer finds its activity: high for what it should accept, low for what it should reject.
///
/// # For implementors
/// Only [`goodness`](Self::goodness) has to be written. You are guaranteed an activity of at least two dimensions whose
/// length has not been normalised. You guarantee finite values for finite activities, one per example (or one per
/// example and class), each computed from its own row alone.
pub trait GoodnessFn: Send + Sync {
    /// The goodness of every row: `(R, …)` to `(R,)`, or to `(R, C)` when there is a column per class.
    ///
    /// # Errors
    /// Whatever candle refuses.
    fn goodness(&self, activity: &Tensor) -> Result<Tensor>;

    /// How many columns the goodness has, if one for each class; by default it has one value per row.
    fn classes(&self) -> Option<usize> {
        None
    }

    /// The goodness above which an activity of `units` numbers counts as positive, unless a setting says otherwise;
    /// by default 0.
    fn threshold(&self, _units: usize) -> f64 {
        0.
    }

    /// The gradient of `Σ upstream·goodness` with respect to the activity, of the activity's shape.
    ///
    /// `upstream` has the shape of the goodness. The default lets candle's autograd find it; a closed form saves a
    /// pass or two over the activity.
    ///
    /// # Errors
    /// Whatever candle refuses.
    fn gradient(&self, activity: &Tensor, upstream: &Tensor) -> Result<Tensor> {
        let activity = Var::from_tensor(activity)?;
        let total = (self.goodness(&activity)? * upstream.detach())?.sum_all()?;
        match total.backward()?.remove(&activity) {
            Some(gradient) => Ok(gradient.detach()),
            None => Ok(activity.zeros_like()?.detach()),
        }
    }

    /// One step of the goodness's own variables, where it has any, such as a projection to classes; by default it
    /// has none. They have to be made through [`BuildContext::vars`](crate::BuildContext::vars).
    ///
    /// # Errors
    /// Whatever the update refuses.
    fn learn(
        &mut self,
        _activity: &Tensor,
        _upstream: &Tensor,
        _optimiser: &mut Optimiser,
        _step: &Step,
    ) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    struct Cubes;

    impl GoodnessFn for Cubes {
        fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
            Ok(activity.powf(3.)?.sum(1)?)
        }
    }

    #[test]
    fn the_default_gradient_is_found_by_autograd() -> Result<()> {
        let activity = Tensor::new(&[[1f64, 2.], [3., 0.]], &Device::Cpu)?;
        let upstream = Tensor::new(&[1f64, -1.], &Device::Cpu)?;
        let gradient = Cubes.gradient(&activity, &upstream)?.to_vec2::<f64>()?;
        assert_eq!(gradient, [[3., 12.], [-27., 0.]]); // ±3·a²
        Ok(())
    }
}
