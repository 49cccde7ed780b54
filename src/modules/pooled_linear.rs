//! A linear map of an activity, of averages over its pixels if it is a picture.

use candle_core::Tensor;
use candle_nn::Init;

use crate::error::Result;
use crate::flow::graph::{Graph, Node};
use crate::flow::input::Input;
use crate::flow::step::Step;
use crate::flow::vars::Vars;
use crate::modules::cache::LastResult;
use crate::modules::cells::Cells;
use crate::modules::linear::Linear;
use crate::optim::Optimiser;

/// `y = cell(a)·M`, the usual local classifier of a layer.
///
/// | tensor    | shape    |                               |
/// |-----------|----------|-------------------------------|
/// | `a`       | `(R, …)` | an activity                   |
/// | `cell(a)` | `(R, D)` | averages of it: see [`Cells`] |
/// | `M`       | `(D, C)` | the variable `weight`         |
/// | `y`       | `(R, C)` |                               |
pub struct PooledLinear {
    linear: Linear,
    cells: Cells,
    /// The averages of the last activity, which are needed three times per step.
    kept: LastResult<Input>,
}

impl PooledLinear {
    /// A map of the averages `cells` to `outputs` numbers.
    ///
    /// # Errors
    /// Errors of [`Vars::get`].
    pub fn new(vars: &Vars, cells: Cells, outputs: usize, init: Init, bias: bool) -> Result<Self> {
        Ok(Self {
            linear: Linear::new(vars, cells.inputs(), outputs, init, bias)?,
            cells,
            kept: LastResult::default(),
        })
    }

    fn averaged(&self, activity: &Tensor) -> Result<Input> {
        if !self.cells.are_averaged() {
            // Nothing is computed, and to keep the activity would take memory.
            return Input::of(self.cells.means(activity)?);
        }
        if let Some(averages) = self.kept.get(activity) {
            return Ok(averages);
        }
        let averages = Input::of(self.cells.means(activity)?)?;
        self.kept.put(activity, averages.clone());
        Ok(averages)
    }

    /// `cell(a)·M`, `(R, C)`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if the activity has another shape.
    pub fn forward(&self, activity: &Tensor) -> Result<Tensor> {
        self.linear.forward(&self.averaged(activity)?, false)
    }

    /// Adds `cell(a)·M` to a graph.
    ///
    /// # Errors
    /// As [`Linear::graph`].
    pub fn graph(&self, activity: Node, graph: &mut Graph) -> Result<Node> {
        let averages = self.cells.graph(activity, graph)?;
        self.linear.graph(averages, graph)
    }

    /// The gradient with respect to the activity, given that with respect to `y`.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn gradient(&self, activity: &Tensor, upstream: &Tensor) -> Result<Tensor> {
        let gradient = self.linear.joined_gradient(upstream)?;
        self.cells.gradient(activity, &gradient)
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
        // Else every layer of a deep net would keep the averages of its last batch.
        self.kept.take(activity);
        self.linear.update(&averages, upstream, optimiser, step)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::optim::{OptimiserSpec, Span};

    #[test]
    fn nothing_of_a_batch_is_kept_after_the_update() -> Result<()> {
        let vars = Vars::new(1, DType::F32, &Device::Cpu);
        let cells = Cells::new(&[3, 2, 2], Some(1));
        let mut linear = PooledLinear::new(&vars, cells, 2, Init::Const(0.), true)?;
        let spec = OptimiserSpec::sgd(1.);
        let mut optimiser = Optimiser::new(vars.clone(), spec, Span::Epochs(0..1));
        let activity = Tensor::ones((4, 3, 2, 2), DType::F32, &Device::Cpu)?;
        let goodness = linear.forward(&activity)?;
        assert!(linear.kept.get(&activity).is_some());
        linear.update(&activity, &goodness, &mut optimiser, &Step::first(1))?;
        assert!(linear.kept.get(&activity).is_none());
        // An evaluation ends without an update.
        let cells = Cells::new(&[12], None);
        let flat = PooledLinear::new(&vars.scope("flat"), cells, 2, Init::Const(0.), true)?;
        let activity = activity.flatten_from(1)?;
        flat.forward(&activity)?;
        assert!(flat.kept.get(&activity).is_none());
        Ok(())
    }
}
