//! A linear map of an activity, of averages over its pixels if it is a picture.

use candle_core::Tensor;
use candle_nn::Init;

use crate::error::{Error, Result};
use crate::flow::input::Input;
use crate::flow::step::Step;
use crate::flow::vars::Vars;
use crate::kernels;
use crate::modules::cache::LastResult;
use crate::modules::linear::Linear;
use crate::optim::Optimiser;

/// `y = cell(a)·M`, the usual local classifier of a layer.
///
/// | tensor    | shape                            |                                     |
/// |-----------|----------------------------------|-------------------------------------|
/// | `a`       | `(R, …)`; `(R, N, H, W)` of maps | an activity                         |
/// | `cell(a)` | `(R, D)`; `D = N·grid²` for maps | means of the cells of a grid        |
/// | `M`       | `(D, C)`                         | the variable `weight`, starts at 0  |
/// | `y`       | `(R, C)`                         |                                     |
pub struct PooledLinear {
    linear: Linear,
    /// The height and width of a cell, if cells are averaged.
    cell: Option<[usize; 2]>,
    /// The averages of the last activity, which are needed three times per step.
    kept: LastResult<Input>,
}

impl PooledLinear {
    /// A map of activities of the shape `input` to `outputs` numbers; with a `grid`, maps
    /// `(N, H, W)` are averaged over `grid×grid` cells.
    ///
    /// # Errors
    /// [`Error::Unfit`] if the grid does not divide the map; errors of [`Vars::get`].
    pub fn new(
        vars: &Vars,
        input: &[usize],
        outputs: usize,
        grid: Option<usize>,
        bias: bool,
    ) -> Result<Self> {
        let (mut inputs, mut cell) = (input.iter().product::<usize>(), None);
        if let (Some(grid), &[channels, height, width]) = (grid, input) {
            if grid == 0 || height % grid != 0 || width % grid != 0 {
                let problem = format!(
                    "found activities of {height}×{width}, expected a `grid` that \
                     divides them, not {grid}"
                );
                return Err(Error::unfit(vars.path("weight"), problem));
            }
            cell = Some([height / grid, width / grid]).filter(|cell| *cell != [1, 1]);
            inputs = channels * grid * grid;
        }
        let linear = Linear::new(vars, inputs, outputs, Init::Const(0.), bias)?;
        Ok(Self {
            linear,
            cell,
            kept: LastResult::default(),
        })
    }

    /// The finest grid that leaves at most `most` numbers of an activity of the shape
    /// `input`; `None` if it is no square map or has no more than that.
    pub fn grid(input: &[usize], most: usize) -> Option<usize> {
        let &[channels, height, width] = input else {
            return None;
        };
        let fits = |grid: &usize| height % grid == 0 && width % grid == 0;
        let small = |grid: &usize| channels * grid * grid <= most;
        (channels * height * width > most).then(|| {
            let grids = (1..=height.min(width)).rev();
            grids.filter(fits).find(small).unwrap_or(1)
        })
    }

    fn averaged(&self, activity: &Tensor) -> Result<Input> {
        let Some(cell) = self.cell else {
            return Input::of(activity.flatten_from(1)?);
        };
        if let Some(averages) = self.kept.get(activity) {
            return Ok(averages);
        }
        let averages = kernels::cell_means(activity, cell)?;
        let averages = Input::of(averages.flatten_from(1)?)?;
        self.kept.put(activity, averages.clone());
        Ok(averages)
    }

    /// `cell(a)·M`, `(R, C)`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the activity has another shape.
    pub fn forward(&self, activity: &Tensor) -> Result<Tensor> {
        self.linear.forward(&self.averaged(activity)?, false)
    }

    /// The gradient with respect to the activity, given that with respect to `y`.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn gradient(&self, activity: &Tensor, upstream: &Tensor) -> Result<Tensor> {
        let gradient = self.linear.joined_gradient(upstream)?;
        let Some([height, width]) = self.cell else {
            return Ok(gradient.reshape(activity.shape())?);
        };
        let (rows, channels, h, w) = activity.dims4()?;
        let cells = gradient.reshape((rows, channels, h / height, w / width))?;
        kernels::cell_means_gradient(&cells, [height, width])
    }

    /// Updates `M`, given the gradient with respect to `y`.
    ///
    /// # Errors
    /// Errors of the update.
    pub fn update(
        &mut self,
        activity: &Tensor,
        upstream: &Tensor,
        optimiser: &mut Optimiser,
        step: &Step,
    ) -> Result<()> {
        let averages = self.averaged(activity)?;
        self.linear.update(&averages, upstream, optimiser, step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn cells_are_averaged() -> Result<()> {
        let vars = Vars::new(1, DType::F32, &Device::Cpu);
        let linear = PooledLinear::new(&vars, &[1, 2, 4], 2, Some(2), false)?;
        let activity = Tensor::new(&[[[[1f32, 3., 0., 2.], [5., 7., 4., 8.]]]], &Device::Cpu)?;
        let cells = linear.averaged(&activity)?.join()?.to_vec2::<f32>()?;
        assert_eq!(cells, [[2., 1., 6., 6.]]); // 1×2 pixels each
        assert!(PooledLinear::new(&vars.scope("b"), &[1, 2, 4], 2, Some(3), false).is_err());
        Ok(())
    }

    #[test]
    fn the_finest_grid_that_is_small_enough_is_found() {
        let grid = |input: &[usize], most| PooledLinear::grid(input, most);
        assert_eq!(grid(&[64, 16, 16], 2048), Some(4));
        assert_eq!(grid(&[64, 12, 12], 2048), Some(4)); // 6·6·64 = 2304
        assert_eq!(grid(&[5000, 4, 4], 2048), Some(1));
        assert_eq!(grid(&[128, 4, 4], 2048), None);
        assert_eq!(grid(&[5000], 2048), None);
    }
}
