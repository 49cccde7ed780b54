//! What a layer passes on of its activity, if it is not the activity itself.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::flow::graph::{Graph, Node};
use crate::kernels::{self, Gate, Windows};
use crate::modules::rectifier;

crate::choices! {
    /// What a layer passes on to the next one.
    pub enum Passes {
        /// The activity.
        Activity = "activity",
        /// `max(0, a − mean a)`, with the mean over all units, or over all channels of a
        /// pixel.
        Triangle = "triangle",
    }
}

impl Passes {
    /// Refuses the difference from the mean of a single unit or channel, which is 0.
    ///
    /// # Errors
    /// [`Error::Unfit`] for it.
    pub fn check(self, units: usize) -> Result<()> {
        if self == Self::Triangle && units == 1 {
            let problem = "a single unit or channel less the mean over units is always 0; use \
                           more units, or `passes = \"activity\"`";
            return Err(Error::unfit("passes", problem));
        }
        Ok(())
    }

    /// What is passed on of an activity, `(R, N, …)`, of the same shape.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn of(self, activity: &Tensor) -> Result<Tensor> {
        match self {
            Self::Activity => Ok(activity.detach()),
            Self::Triangle => {
                kernels::leaky_relu(&kernels::centred(&activity.detach())?.detach(), 0.)
            }
        }
    }

    /// The gradient with respect to the activity, given that with respect to what is
    /// passed on.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn gradient(self, activity: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        match self {
            Self::Activity => Ok(gradient.clone()),
            Self::Triangle => {
                let relu = Gate {
                    slope: 0.,
                    gain: 1.,
                };
                kernels::centred(&kernels::gate(gradient, &self.of(activity)?, relu)?)
            }
        }
    }

    /// Adds what is passed on to a graph.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn graph(self, activity: Node, graph: &mut Graph) -> Result<Node> {
        match self {
            Self::Activity => Ok(activity),
            Self::Triangle => {
                let centred = rectifier::centred(activity, graph)?;
                Ok(graph.relu(centred))
            }
        }
    }
}

crate::choices! {
    /// How a map is made smaller.
    pub enum Pool {
        /// The largest of 4×4 pixels, every 2 pixels.
        Max = "max",
        /// The mean of 2×2 pixels.
        Mean = "mean",
        /// It is not.
        None = "none",
    }
}

/// The windows of [`Pool::Max`].
const MAX: Windows = Windows {
    size: 4,
    stride: 2,
    border: 1,
};

/// Whether a map cannot be made smaller.
fn is_small(map: &Tensor) -> bool {
    map.rank() < 4 || map.dims()[2..].iter().any(|size| *size < 2)
}

impl Pool {
    /// A map `(R, N, H, W)` made smaller; one of a single row or column stays as it is.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn of(self, map: &Tensor) -> Result<Tensor> {
        Ok(match self {
            _ if is_small(map) => map.clone(),
            Self::None => map.clone(),
            Self::Mean => map.avg_pool2d(2)?,
            Self::Max => {
                // A border that repeats the pixels beside it changes no maximum.
                let border = MAX.border;
                let map = map.pad_with_same(2, border, border)?;
                let map = map.pad_with_same(3, border, border)?;
                map.max_pool2d_with_stride(MAX.size, MAX.stride)?
            }
        })
    }

    /// `max(0, x − mean x)^power` of a map `(R, N, H, W)`, with the mean over the `N`
    /// channels of a pixel, made smaller: for `Max` in one pass.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn of_triangle(self, x: &Tensor, power: f64) -> Result<Tensor> {
        match self {
            // Nothing is negative, so that zeros beside the map change no maximum.
            Self::Max if !is_small(x) => kernels::above_mean(x, MAX, power),
            _ => self.of(&kernels::above_mean(x, Windows::PIXELS, power)?),
        }
    }

    /// Adds the smaller map to a graph.
    ///
    /// # Errors
    /// [`Error::Unfit`] for pixels that overlap.
    pub fn graph(self, map: Node, graph: &mut Graph) -> Result<Node> {
        let is_small = graph.shape(map)[1..].iter().any(|size| *size < 2);
        match self {
            _ if is_small => Ok(map),
            Self::None => Ok(map),
            Self::Mean => Ok(graph.mean_pool(map, [2, 2])),
            Self::Max => {
                let problem = "cannot be exported with pools that overlap (`max`)";
                Err(Error::unfit("pool", problem))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::flow::random::normals;

    #[test]
    fn the_triangle_of_a_single_unit_is_refused() {
        let error = Passes::Triangle.check(1).unwrap_err().to_string();
        assert!(error.contains("more units"), "{error}");
        assert!(Passes::Triangle.check(2).is_ok());
        assert!(Passes::Activity.check(1).is_ok());
    }

    #[test]
    fn the_triangle_is_what_exceeds_the_mean() -> Result<()> {
        let activity = Tensor::new(&[[1f64, -2., 4.]], &Device::Cpu)?; // the mean is 1
        let passed = Passes::Triangle.of(&activity)?.to_vec2::<f64>()?;
        assert_eq!(passed, [[0., 0., 3.]]);
        // The third unit alone passes a gradient, 6, less its share of the mean, 2.
        let gradient = Tensor::new(&[[7f64, 7., 6.]], &Device::Cpu)?;
        let gradient = Passes::Triangle.gradient(&activity, &gradient)?;
        assert_eq!(gradient.to_vec2::<f64>()?, [[-2., -2., 4.]]);
        Ok(())
    }

    #[test]
    fn a_triangle_is_pooled_as_in_two_steps() -> Result<()> {
        let x = normals(&[3, 5, 6, 7], 1)?;
        let numbers = |x: Tensor| x.flatten_all()?.to_vec1::<f32>();
        for pool in [Pool::Max, Pool::Mean, Pool::None] {
            let two = pool.of(&Passes::Triangle.of(&x)?)?;
            assert_eq!(numbers(pool.of_triangle(&x, 1.)?)?, numbers(two)?);
        }
        Ok(())
    }

    #[test]
    fn a_map_that_cannot_be_smaller_stays() -> Result<()> {
        let map = Tensor::new(&[[[[1f64, 2., 3.]]]], &Device::Cpu)?;
        for pool in [Pool::Max, Pool::Mean, Pool::None] {
            assert_eq!(pool.of(&map)?.dims(), map.dims());
            assert_eq!(pool.of_triangle(&map, 1.)?.dims(), map.dims());
        }
        Ok(())
    }
}
