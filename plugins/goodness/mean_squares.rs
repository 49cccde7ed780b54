//! Goodness `mean_squares`.

use onward_core::candle_core::Tensor;
use onward_core::contract::goodness::Polarity;
use onward_core::flow::graph::{Graph, Node};
use onward_core::plugin::preset::Preset;
use onward_core::{kernels, GoodnessFn, Objective, Result};

onward_core::settings! {
    /// Goodness of an example as the mean of its squared activities.
    ///
    /// `g[b] = (1/N)·Σᵢ a[b, i]²`, with `i` over the `N` numbers of every dimension but
    /// the first; with `positive = "low"` its negative. `(B, …)` to `(B,)`.
    ///
    /// It does not depend on the width of the layer. With threshold 1 and temperature
    /// `1/N` it decides exactly as `sum_squares` with threshold `N` and temperature 1.
    /// Its gradient is `1/N` of that, so use Adam, or a learning rate `N` times as large
    /// and a peer normalisation of `1/N` of the strength.
    ///
    /// # Reference
    /// nebuly-ai's `forward_forward` app, which also has the threshold 2.
    pub struct MeanSquares {
        /// The activity that positive views should have: high or low.
        positive: Polarity = Polarity::High;
    }
}

impl GoodnessFn for MeanSquares {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        let units = activity.elem_count() / activity.dim(0)?.max(1);
        Ok((kernels::sum_squares(activity)? * (self.positive.sign() / units as f64))?)
    }

    fn graph(&self, activity: Node, graph: &mut Graph) -> Result<Node> {
        let units = graph.shape(activity).iter().product::<usize>();
        let squares = graph.sum_squares(activity);
        graph.times(squares, self.positive.sign() / units as f64)
    }

    fn threshold(&self, _units: usize) -> f64 {
        2. * self.positive.sign()
    }

    fn theta(&self, objective: &Objective, units: usize) -> f64 {
        let default = self.threshold(units);
        self.positive.threshold(objective.theta, default)
    }

    fn gradient(&self, activity: &Tensor, upstream: &Tensor) -> Result<Tensor> {
        let units = activity.elem_count() / activity.dim(0)?.max(1);
        let by = 2. * self.positive.sign() / units as f64;
        kernels::scale_rows_by(activity, upstream, by)
    }
}

/// The gradient is that of the sum of squares, divided by the number of units: Adam does
/// not depend on its size, and a peer normalisation of the usual strength would outweigh
/// it.
const PRESETS: &[Preset] = &[Preset {
    name: "adam",
    about: "Adam, which does not depend on the size of the gradient, and no peer normalisation",
    settings: r#"
        theta = 1.0
        temperature = 0.1
        optimiser = "adam"
        lr = 0.001
        layer = { peer = 0.0 }
    "#,
}];

onward_core::register! {
    dyn GoodnessFn, "mean_squares",
    "mean of squared activities, threshold 2 \
     (nebuly-ai forward_forward; Hinton 2022, arXiv 2212.13345)",
    |settings: MeanSquares, _context| Ok(Box::new(settings)),
    .presets(PRESETS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use onward_core::candle_core::Device;

    #[test]
    fn the_mean_does_not_grow_with_the_width() -> Result<()> {
        let activity = Tensor::new(&[[1f32, 2., 1., 2.], [0., 2., 0., 2.]], &Device::Cpu)?;
        assert_eq!(
            MeanSquares::default()
                .goodness(&activity)?
                .to_vec1::<f32>()?,
            [2.5, 2.]
        );
        // 2·a/N times the upstream gradient; negative if low activity is good.
        let upstream = Tensor::new(&[1f32, 2.], &Device::Cpu)?;
        let gradient = |positive| -> Result<_> {
            Ok(MeanSquares { positive }
                .gradient(&activity, &upstream)?
                .to_vec2::<f32>()?)
        };
        assert_eq!(
            gradient(Polarity::High)?,
            [[0.5, 1., 0.5, 1.], [0., 2., 0., 2.]]
        );
        assert_eq!(
            gradient(Polarity::Low)?,
            [[-0.5, -1., -0.5, -1.], [0., -2., 0., -2.]]
        );
        Ok(())
    }
}
