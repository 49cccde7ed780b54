//! A linear map by least squares: sums over an epoch, solved at its end.

use candle_core::{DType, Tensor, Var};
use candle_nn::Init;

use crate::error::Result;
use crate::flow::graph::{Graph, Node};
use crate::flow::vars::Vars;
use crate::kernels::{self, normal_equations};

/// `y = x·M + c` by ridge regression.
///
/// `(M; c) = (XᵀX + λ·I)⁻¹·XᵀY` with the rows `x`, followed by 1, and the targets `y`
/// that were added since the last solution; `λ = ridge·trace(XᵀX) / (D + 1)`.
///
/// | tensor | shape        |                                               |
/// |--------|--------------|-----------------------------------------------|
/// | `x`    | `(R, D)`     |                                               |
/// | `M; c` | `(D + 1, C)` | the variable `map`                            |
/// | `XᵀX`  | `(D + 1, D + 1)` | the state `squares`, `f64`, its lower triangle |
/// | `XᵀY`  | `(D + 1, C)` | the state `products`, `f64`                   |
///
/// The sums are part of a checkpoint. In another order of the rows they are the same
/// within rounding, so they can also be made in parts and added.
pub struct LeastSquares {
    ridge: f64,
    map: Var,
    squares: Var,
    products: Var,
    vars: Vars,
}

impl LeastSquares {
    /// A map of `inputs` to `outputs` numbers, with its variables at `vars`. Before the
    /// first solution it is as `init` says.
    ///
    /// # Errors
    /// As [`Vars::get`].
    pub fn new(vars: &Vars, [inputs, outputs]: [usize; 2], ridge: f64, init: Init) -> Result<Self> {
        let rows = inputs + 1;
        // Metal has no f64.
        let dtype = match vars.device().is_metal() {
            true => DType::F32,
            false => DType::F64,
        };
        Ok(Self {
            ridge,
            map: vars.get("map", (rows, outputs), init)?,
            squares: vars.state("squares", (rows, rows), dtype)?,
            products: vars.state("products", (rows, outputs), dtype)?,
            vars: vars.clone(),
        })
    }

    /// `x·M + c`, `(R, C)`.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn forward(&self, rows: &Tensor) -> Result<Tensor> {
        let inputs = self.map.dim(0)? - 1;
        let product = kernels::matmul(rows, &self.map.narrow(0, 0, inputs)?)?;
        Ok(product.broadcast_add(&self.map.narrow(0, inputs, 1)?)?)
    }

    /// Adds `x·M + c` to a graph.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the input has another width.
    pub fn graph(&self, x: Node, graph: &mut Graph) -> Result<Node> {
        let inputs = self.map.dim(0)? - 1;
        let (map, constant) = (
            self.map.narrow(0, 0, inputs)?,
            self.map.narrow(0, inputs, 1)?,
        );
        let (x, map) = (graph.flat(x), graph.constant(&map)?);
        let product = graph.matmul(x, map)?;
        let constant = graph.constant(&constant.squeeze(0)?)?;
        Ok(graph.add(product, constant))
    }

    /// Adds rows `(R, D)` and their targets `(R, C)` to the sums.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn add(&mut self, rows: &Tensor, targets: &Tensor) -> Result<()> {
        let dtype = self.squares.dtype();
        let rows = rows.to_dtype(dtype)?;
        let rows = Tensor::cat(&[&rows, &rows.narrow(1, 0, 1)?.ones_like()?], 1)?;
        normal_equations::add_squares(&self.squares, &rows)?;
        normal_equations::add_products(&self.products, &rows, &targets.to_dtype(dtype)?)
    }

    /// As [`add`](Self::add), with the one-hot labels as targets.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn add_labels(&mut self, rows: &Tensor, labels: &[u32]) -> Result<()> {
        let targets = kernels::one_hot(labels, self.map.dim(1)?, rows)?;
        self.add(rows, &targets)
    }

    /// Sets `M` and `c` to the solution, and the sums to 0.
    ///
    /// # Errors
    /// [`Error::Unfit`](crate::Error::Unfit) if nothing was added or an activity was not
    /// finite.
    pub fn solve(&mut self) -> Result<()> {
        let map = normal_equations::solve(&self.squares, &self.products, self.ridge)?;
        let map = map.to_dtype(self.map.dtype())?;
        self.map.set(&map.to_device(self.map.device())?)?;
        self.vars.changed();
        for sum in [&self.squares, &self.products] {
            sum.set(&sum.zeros_like()?.detach())?;
        }
        Ok(())
    }
}
