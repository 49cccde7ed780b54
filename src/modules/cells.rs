//! Averages of an activity over the cells of a grid.

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::flow::graph::{Graph, Node};
use crate::kernels;

/// The cells over which an activity is averaged before a classifier sees it. Only maps
/// `(N, H, W)` have cells; any other activity is flattened.
///
/// | tensor     | shape                            |                               |
/// |------------|----------------------------------|-------------------------------|
/// | `a`        | `(R, …)`; `(R, N, H, W)` of maps | an activity                   |
/// | `cell(a)`  | `(R, D)`; `D = N·grid²` for maps | the mean of every cell        |
#[derive(Clone, Debug)]
pub struct Cells {
    /// The height and width of a cell, if cells are averaged.
    cell: Option<[usize; 2]>,
    inputs: usize,
}

impl Cells {
    /// `grid×grid` cells for activities of the shape `input`; `None` for no averages.
    ///
    /// # Errors
    /// [`Error::Unfit`] if the grid does not divide the map.
    pub fn new(input: &[usize], grid: Option<usize>) -> Result<Self> {
        let (Some(grid), &[channels, height, width]) = (grid, input) else {
            return Ok(Self {
                cell: None,
                inputs: input.iter().product(),
            });
        };
        if grid == 0 || height % grid != 0 || width % grid != 0 {
            let divides = |grid: &usize| height % grid == 0 && width % grid == 0;
            let fitting = (1..=height.min(width)).filter(divides);
            let fitting: Vec<String> = fitting.map(|grid| grid.to_string()).collect();
            let problem = format!(
                "found activities of {height}×{width}, which a `grid` of {grid} does not divide; \
                 set the goodness's `grid` to one of {} (0 for no averages), or use images of \
                 another size",
                fitting.join(", ")
            );
            return Err(Error::unfit("cells", problem));
        }
        Ok(Self {
            cell: Some([height / grid, width / grid]).filter(|cell| *cell != [1, 1]),
            inputs: channels * grid * grid,
        })
    }

    /// The finest grid that leaves at most `most` numbers of an activity of the shape
    /// `input`. An activity that is no map, or has no more than that, is not averaged.
    pub fn at_most(input: &[usize], most: usize) -> Result<Self> {
        let grid = match *input {
            [channels, height, width] if channels * height * width > most => {
                let divides = |grid: &usize| height % grid == 0 && width % grid == 0;
                let is_small = |grid: &usize| channels * grid * grid <= most;
                let grids = (1..=height.min(width)).rev();
                Some(grids.filter(divides).find(is_small).unwrap_or(1))
            }
            _ => None,
        };
        Self::new(input, grid)
    }

    /// Whether there are averages; otherwise an activity is only flattened.
    pub fn are_averaged(&self) -> bool {
        self.cell.is_some()
    }

    /// The number of averages, `D`.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// `cell(a)`, `(R, D)`.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn means(&self, activity: &Tensor) -> Result<Tensor> {
        match self.cell {
            Some(cell) => Ok(kernels::cell_means(activity, cell)?.flatten_from(1)?),
            None => Ok(activity.flatten_from(1)?),
        }
    }

    /// Adds `cell(a)` to a graph.
    pub fn graph(&self, activity: Node, graph: &mut Graph) -> Node {
        let means = match self.cell {
            Some(cell) => graph.mean_pool(activity, cell),
            None => activity,
        };
        graph.flat(means)
    }

    /// The gradient with respect to an activity, given that with respect to its averages,
    /// `(R, D)`.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn gradient(&self, activity: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        let Some([height, width]) = self.cell else {
            return Ok(gradient.reshape(activity.shape())?);
        };
        let (rows, channels, h, w) = activity.dims4()?;
        let cells = gradient.reshape((rows, channels, h / height, w / width))?;
        kernels::cell_means_gradient(&cells, [height, width])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn cells_are_averaged() -> Result<()> {
        let cells = Cells::new(&[1, 2, 4], Some(2))?;
        let activity = Tensor::new(&[[[[1f32, 3., 0., 2.], [5., 7., 4., 8.]]]], &Device::Cpu)?;
        let means = cells.means(&activity)?.to_vec2::<f32>()?;
        assert_eq!(means, [[2., 1., 6., 6.]]); // 1×2 pixels each
        let gradient = Tensor::new(&[[2f32, 4., 6., 8.]], &Device::Cpu)?;
        let gradient = cells.gradient(&activity, &gradient)?;
        let expected = [1., 1., 2., 2., 3., 3., 4., 4.]; // halves
        assert_eq!(gradient.flatten_all()?.to_vec1::<f32>()?, expected);
        assert!(Cells::new(&[1, 2, 4], Some(3)).is_err());
        Ok(())
    }

    #[test]
    fn the_finest_grid_that_is_small_enough_is_found() -> Result<()> {
        for (input, inputs) in [
            (&[64, 16, 16][..], 64 * 16),
            (&[64, 12, 12], 64 * 16), // 6·6·64 = 2304
            (&[5000, 4, 4], 5000),
            (&[128, 4, 4], 2048),
            (&[5000], 5000),
        ] {
            assert_eq!(Cells::at_most(input, 2048)?.inputs(), inputs, "{input:?}");
        }
        Ok(())
    }
}
