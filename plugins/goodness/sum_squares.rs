//! Goodness `sum_squares`.

use onward_core::candle_core::Tensor;
use onward_core::contract::goodness::Polarity;
use onward_core::flow::graph::{Graph, Node};
use onward_core::{kernels, GoodnessFn, Objective, Result};

onward_core::settings! {
    /// Goodness of an example as the sum of its squared activities.
    ///
    /// `g[b] = Σᵢ a[b, i]²`, with `i` over every dimension but the first; with
    /// `positive = "low"` its negative.
    ///
    /// | tensor   | shape    |                                         |
    /// |----------|----------|-----------------------------------------|
    /// | activity | `(B, …)` | non-linear output, before normalisation       |
    /// | goodness | `(B,)`   |                                         |
    ///
    /// The goodness of a layer grows with its width, so the threshold is the number of
    /// units unless `theta` is set.
    ///
    /// # Reference
    /// Hinton, "The Forward-Forward Algorithm", 2022, section 2
    /// (<https://arxiv.org/abs/2212.13345>).
    pub struct SumSquares {
        /// The activity that positive views should have: high or low.
        positive: Polarity = Polarity::High;
    }
}

impl GoodnessFn for SumSquares {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        self.positive.of(kernels::sum_squares(activity)?)
    }

    fn graph(&self, activity: Node, graph: &mut Graph) -> Result<Node> {
        let squares = graph.sum_squares(activity);
        graph.times(squares, self.positive.sign())
    }

    fn threshold(&self, units: usize) -> f64 {
        self.positive.sign() * units as f64
    }

    fn theta(&self, objective: &Objective, units: usize) -> f64 {
        let default = self.threshold(units);
        self.positive.threshold(objective.theta, default)
    }

    fn gradient(&self, activity: &Tensor, upstream: &Tensor) -> Result<Tensor> {
        kernels::scale_rows_by(activity, upstream, 2. * self.positive.sign())
    }
}

onward_core::register! {
    dyn GoodnessFn, "sum_squares",
    "sum of squared activities, threshold: the number of units \
     (Hinton 2022, arXiv 2212.13345)",
    |settings: SumSquares, _context| Ok(Box::new(settings))
}

#[cfg(test)]
mod tests {
    use super::*;
    use onward_core::candle_core::Device;

    #[test]
    fn theta_is_the_threshold_of_high_activity() {
        let low = SumSquares {
            positive: Polarity::Low,
        };
        for (theta, of_high, of_low) in [(None, 5., -5.), (Some(2.), 2., -2.)] {
            let objective = Objective {
                theta,
                ..Objective::default()
            };
            assert_eq!(SumSquares::default().theta(&objective, 5), of_high);
            assert_eq!(low.theta(&objective, 5), of_low);
        }
    }

    #[test]
    fn squares_are_summed_over_everything_but_the_batch() -> Result<()> {
        let activity = Tensor::new(&[[[1f32, 2.]], [[0., 3.]]], &Device::Cpu)?;
        assert_eq!(
            SumSquares::default()
                .goodness(&activity)?
                .to_vec1::<f32>()?,
            [5., 9.]
        );
        let low = SumSquares {
            positive: Polarity::Low,
        };
        assert_eq!(low.goodness(&activity)?.to_vec1::<f32>()?, [-5., -9.]);
        assert_eq!(low.threshold(2), -2.);
        let upstream = Tensor::new(&[1f32, 0.5], &Device::Cpu)?;
        let gradient = |positive| -> Result<_> {
            Ok(SumSquares { positive }
                .gradient(&activity, &upstream)?
                .to_vec3::<f32>()?)
        };
        assert_eq!(gradient(Polarity::High)?, [[[2., 4.]], [[0., 3.]]]);
        assert_eq!(gradient(Polarity::Low)?, [[[-2., -4.]], [[0., -3.]]]);
        Ok(())
    }
}
