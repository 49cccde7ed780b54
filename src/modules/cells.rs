//! Averages of an activity over the cells of a grid.

use candle_core::{Device, Tensor};

use crate::error::Result;
use crate::flow::graph::{Graph, Node};
use crate::kernels;

/// The cells over which an activity is averaged before a classifier sees it. Only maps
/// `(N, H, W)` have cells; any other activity is flattened.
///
/// | tensor     | shape                            |                               |
/// |------------|----------------------------------|-------------------------------|
/// | `a`        | `(R, …)`; `(R, N, H, W)` of maps | an activity                   |
/// | `cell(a)`  | `(R, D)`; `D = N·grid²` for maps | the mean of every cell        |
///
/// Cells of a grid that does not divide the map are of different sizes and overlap, as in
/// PyTorch's `AdaptiveAvgPool2d`: cell `i` of `g` has the rows from `⌊i·H/g⌋` up to
/// `⌈(i + 1)·H/g⌉`. Along a side of fewer pixels than `grid`, each pixel is a cell.
#[derive(Clone, Debug)]
pub struct Cells {
    averages: Averages,
    inputs: usize,
}

#[derive(Clone, Debug)]
enum Averages {
    None,
    /// The height and width of a cell.
    Even([usize; 2]),
    Uneven(Uneven),
}

/// Cells of different sizes.
#[derive(Clone, Debug)]
struct Uneven {
    /// The height and width of a map, and the number of cells along each.
    sides: [(usize, usize); 2],
}

impl Cells {
    /// `grid×grid` cells for activities of the shape `input`; `None` for no averages.
    pub fn new(input: &[usize], grid: Option<usize>) -> Self {
        let (Some(grid), &[channels, height, width]) = (grid, input) else {
            return Self {
                averages: Averages::None,
                inputs: input.iter().product(),
            };
        };
        let sides = [height, width].map(|side| (side, grid.clamp(1, side.max(1))));
        let [down, across] = sides.map(|(side, cells)| side / cells);
        let is_even = sides.iter().all(|(side, cells)| side % cells == 0);
        Self {
            averages: match (is_even, [down, across]) {
                (true, [1, 1]) => Averages::None,
                (true, cell) => Averages::Even(cell),
                (false, _) => Averages::Uneven(Uneven { sides }),
            },
            inputs: channels * sides[0].1 * sides[1].1,
        }
    }

    /// The finest grid that divides the map and leaves at most `most` numbers of an activity
    /// of the shape `input`. An activity that is no map, or has no more than that, is not
    /// averaged.
    pub fn at_most(input: &[usize], most: usize) -> Self {
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
        !matches!(self.averages, Averages::None)
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
        match &self.averages {
            Averages::None => Ok(activity.flatten_from(1)?),
            Averages::Even(cell) => Ok(kernels::cell_means(activity, *cell)?.flatten_from(1)?),
            Averages::Uneven(cells) => {
                Ok(kernels::uneven_means(activity, cells.sides)?.flatten_from(1)?)
            }
        }
    }

    /// Adds `cell(a)` to a graph.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn graph(&self, activity: Node, graph: &mut Graph) -> Result<Node> {
        let means = match &self.averages {
            Averages::None => activity,
            Averages::Even(cell) => graph.mean_pool(activity, *cell),
            Averages::Uneven(cells) => {
                let [(height, down), (width, across)] = cells.sides;
                let channels = graph.shape(activity)[0];
                let maps = graph.shaped(activity, &[channels, height * width]);
                let shares = kernels::shares_of_cells(cells.sides);
                let shape = (height * width, down * across);
                let shares = graph.constant(&Tensor::from_vec(shares, shape, &Device::Cpu)?)?;
                graph.matmul_of_each(maps, shares)?
            }
        };
        Ok(graph.flat(means))
    }

    /// The gradient with respect to an activity, given that with respect to its averages,
    /// `(R, D)`.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn gradient(&self, activity: &Tensor, gradient: &Tensor) -> Result<Tensor> {
        match &self.averages {
            Averages::None => Ok(gradient.reshape(activity.shape())?),
            &Averages::Even([height, width]) => {
                let (rows, channels, h, w) = activity.dims4()?;
                let cells = gradient.reshape((rows, channels, h / height, w / width))?;
                kernels::cell_means_gradient(&cells, [height, width])
            }
            Averages::Uneven(cells) => {
                kernels::uneven_means_gradient(gradient, activity, cells.sides)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;

    #[test]
    fn cells_are_averaged() -> Result<()> {
        let cells = Cells::new(&[1, 2, 4], Some(2));
        let activity = Tensor::new(&[[[[1f32, 3., 0., 2.], [5., 7., 4., 8.]]]], &Device::Cpu)?;
        let means = cells.means(&activity)?.to_vec2::<f32>()?;
        assert_eq!(means, [[2., 1., 6., 6.]]); // 1×2 pixels each
        let gradient = Tensor::new(&[[2f32, 4., 6., 8.]], &Device::Cpu)?;
        let gradient = cells.gradient(&activity, &gradient)?;
        let expected = [1., 1., 2., 2., 3., 3., 4., 4.]; // halves
        assert_eq!(gradient.flatten_all()?.to_vec1::<f32>()?, expected);
        Ok(())
    }

    const MEANS: [f64; 8] = [
        2.666_667, 6., 2.166_667, 5.333_333, 2.666_667, 3.666_667, 3.666_667, 2.666_667,
    ];
    #[rustfmt::skip]
    const GRADIENT: [f64; 30] = [
        0., 0., 0.166_667, 0.166_667, 0.166_667,
        0.333_333, 0.333_333, 1., 0.666_667, 0.666_667,
        0.333_333, 0.333_333, 0.833_333, 0.5, 0.5,
        0.666_667, 0.666_667, 1.5, 0.833_333, 0.833_333,
        1.666_667, 1.666_667, 3.666_667, 2., 2.,
        1., 1., 2.166_667, 1.166_667, 1.166_667,
    ];

    // import torch
    // a = (torch.arange(30.) ** 2 % 11).reshape(1, 2, 3, 5).requires_grad_()
    // y = torch.nn.functional.adaptive_avg_pool2d(a, (2, 2))
    // (y.flatten() * torch.arange(8.)).sum().backward()
    // print(y.flatten(), a.grad.flatten())
    #[test]
    fn cells_that_do_not_divide_a_map_agree_with_pytorch() -> Result<()> {
        let numbers: Vec<f64> = (0..30).map(|i| f64::from(i * i % 11)).collect();
        let activity = Tensor::from_vec(numbers, (1, 2, 3, 5), &Device::Cpu)?;
        for dtype in [DType::F32, DType::F64] {
            let (cells, activity) = (Cells::new(&[2, 3, 5], Some(2)), activity.to_dtype(dtype)?);
            let near = |found: Tensor, wanted: &[f64]| -> Result<bool> {
                let found = found
                    .flatten_all()?
                    .to_dtype(DType::F64)?
                    .to_vec1::<f64>()?;
                let apart = found.iter().zip(wanted).map(|(a, b)| (a - b).abs());
                Ok(found.len() == wanted.len() && apart.fold(0., f64::max) < 1e-4)
            };
            assert!(near(cells.means(&activity)?, &MEANS)?);
            let upstream = Tensor::arange(0f64, 8., &Device::Cpu)?.reshape((1, 8))?;
            let gradient = cells.gradient(&activity, &upstream.to_dtype(dtype)?)?;
            assert!(near(gradient, &GRADIENT)?);
        }
        let mut graph = Graph::default();
        let input = graph.input(&[2, 3, 5]);
        Cells::new(&[2, 3, 5], Some(2)).graph(input, &mut graph)?;
        let activity = activity.to_dtype(DType::F32)?;
        let means = Cells::new(&[2, 3, 5], Some(2)).means(&activity)?;
        let apart = (graph.evaluate(&activity)? - means)?.abs()?.max_all()?;
        assert!(apart.to_scalar::<f32>()? < 1e-5);
        // No more cells than pixels.
        assert_eq!(Cells::new(&[4, 3, 5], Some(8)).inputs(), 4 * 15);
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
            assert_eq!(Cells::at_most(input, 2048).inputs(), inputs, "{input:?}");
        }
        Ok(())
    }
}
