//! The network's own prediction, for samplers that draw negatives from it.

use std::cell::OnceCell;

use candle_core::Tensor;

use crate::error::Result;

/// The network's log-probabilities of the classes on the neutral view, `(B, C)`, from
/// the weights before this step.
///
/// It is computed when it is first asked for, so a sampler that does not need it costs
/// no pass.
pub struct Prediction<'a> {
    compute: Box<dyn Fn() -> Result<Tensor> + 'a>,
    computed: OnceCell<Tensor>,
}

impl<'a> Prediction<'a> {
    /// A prediction that `compute` makes when it is first asked for.
    pub fn new(compute: impl Fn() -> Result<Tensor> + 'a) -> Self {
        Self {
            compute: Box::new(compute),
            computed: OnceCell::new(),
        }
    }

    /// A prediction that is known already.
    pub fn of(log_probabilities: Tensor) -> Self {
        Self::new(move || Ok(log_probabilities.clone()))
    }

    /// The log-probabilities, `(B, C)`.
    ///
    /// # Errors
    /// [`Error::Unfit`](crate::Error::Unfit) if the network has no prediction of its
    /// own; errors of its parts.
    pub fn log_probabilities(&self) -> Result<&Tensor> {
        match self.computed.get() {
            Some(known) => Ok(known),
            None => {
                let computed = (self.compute)()?;
                Ok(self.computed.get_or_init(|| computed))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use candle_core::Device;

    use super::*;

    #[test]
    fn a_prediction_is_computed_once_and_only_if_it_is_asked_for() -> Result<()> {
        let passes = Cell::new(0);
        let prediction = Prediction::new(|| {
            passes.set(passes.get() + 1);
            Ok(Tensor::new(&[[-0.1f32, -2.4]], &Device::Cpu)?)
        });
        assert_eq!(passes.get(), 0);
        let first = prediction.log_probabilities()?.to_vec2::<f32>()?;
        assert_eq!(prediction.log_probabilities()?.to_vec2::<f32>()?, first);
        assert_eq!(passes.get(), 1);
        Ok(())
    }
}
