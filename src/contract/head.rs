//! A linear readout of activities. It is trained separately and never changes a block.

use candle_core::Tensor;
use candle_nn::Init;

use crate::contract::loss::cross_entropy;
use crate::error::{Error, Located, Result};
use crate::flow::graph::{Graph, Node};
use crate::flow::input::Input;
use crate::flow::reading::Reading;
use crate::flow::step::Step;
use crate::flow::vars::Vars;
use crate::kernels;
use crate::modules::least_squares::LeastSquares;
use crate::modules::linear::Linear;
use crate::optim::{Algorithm, Optimiser, OptimiserSpec, Span};
use crate::settings::Positive;

crate::settings! {
    /// How a head learns.
    pub struct HeadSpec {
        /// How the head learns: by descent, or in closed form.
        head_rule: HeadRule = HeadRule::Descent;
        /// The update rule of the head.
        head_optimiser: Algorithm = Algorithm::Sgd;
        /// Learning rate of the head.
        head_lr: f64 = 0.1, in Positive.up_to(1000.);
        /// Weight decay of the head.
        head_weight_decay: f64 = 0.003, in 0. ..=1.;
        /// Of a head in closed form: the ridge, relative to the mean of the diagonal of
        /// `XᵀX`.
        head_ridge: f64 = 0.01, in Positive;
    }
}

crate::choices! {
    /// How a head learns.
    pub enum HeadRule {
        /// From the gradient of the cross-entropy, in every step.
        Descent = "descent",
        /// By ridge regression to the one-hot labels, solved at the end of every epoch
        /// from the activities of that epoch.
        Ridge = "ridge",
    }
}

/// How a head learns, complete: what [`Head::new`] takes.
#[derive(Clone, Debug)]
pub struct HeadPlan {
    optimiser: OptimiserSpec,
    ridge: Option<f64>,
}

impl From<OptimiserSpec> for HeadPlan {
    fn from(optimiser: OptimiserSpec) -> Self {
        Self {
            optimiser,
            ridge: None,
        }
    }
}

impl HeadSpec {
    /// How the head learns beside these layers: momentum and schedule are those of the
    /// layers.
    pub fn beside(&self, layers: &OptimiserSpec) -> HeadPlan {
        HeadPlan {
            optimiser: OptimiserSpec {
                optimiser: self.head_optimiser,
                lr: self.head_lr,
                weight_decay: self.head_weight_decay,
                ..layers.clone()
            },
            ridge: (self.head_rule == HeadRule::Ridge).then_some(self.head_ridge),
        }
    }
}

/// A softmax over a linear map of activities, `log softmax(x·W)`, that minimises the
/// cross-entropy with the labels.
///
/// `x` is an [`Input`], usually the normalised activities of several blocks side by
/// side. `W` is `(D, C)` and starts at zero, as in Hinton's program. No gradient
/// of it reaches a block.
///
/// In closed form ([`HeadRule::Ridge`]) the map is that of [`LeastSquares`], with a
/// constant. Its scores are estimates of the one-hot label; the softmax of them gives the
/// right order of the classes, but probabilities that are too much alike.
pub struct Head {
    map: Map,
    optimiser: Optimiser,
}

enum Map {
    Descent(Linear),
    Ridge(LeastSquares),
}

impl Head {
    /// A head over `inputs` columns, with its variables at `vars`, that learns in `span`.
    ///
    /// # Errors
    /// As [`Vars::get`].
    pub fn new(
        vars: &Vars,
        inputs: usize,
        classes: usize,
        plan: impl Into<HeadPlan>,
        span: Span,
    ) -> Result<Self> {
        let plan = plan.into();
        let map = match plan.ridge {
            None => Map::Descent(Linear::new(vars, inputs, classes, Init::Const(0.), false)?),
            Some(ridge) => Map::Ridge(LeastSquares::new(
                vars,
                [inputs, classes],
                ridge,
                Init::Const(0.),
            )?),
        };
        Ok(Self {
            map,
            optimiser: Optimiser::new(vars.clone(), plan.optimiser, span),
        })
    }

    /// Log-probabilities of the classes, `(V·B, C)`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the features are not as wide as the head.
    pub fn log_probabilities(&self, features: &Input) -> Result<Tensor> {
        let scores = match &self.map {
            Map::Descent(linear) => linear.forward(features, false)?,
            Map::Ridge(map) => map.forward(&rows(features)?)?,
        };
        kernels::log_softmax(&scores)
    }

    /// Adds the log-probabilities to a graph, given the features.
    ///
    /// # Errors
    /// [`Error::Shape`] if the features are not as wide as the head.
    pub fn graph(&self, features: Node, graph: &mut Graph) -> Result<Node> {
        let scores = match &self.map {
            Map::Descent(linear) => linear.graph(features, graph)?,
            Map::Ridge(map) => map.graph(features, graph)?,
        };
        Ok(graph.log_softmax(scores))
    }

    /// One step, from what [`Head::log_probabilities`] returned for `features`; returns
    /// the cross-entropy in nats.
    ///
    /// # Errors
    /// [`Error::Unfit`] if the labels do not fit; [`Error::Diverged`] if the loss is
    /// not finite.
    pub fn learn(
        &mut self,
        features: &Input,
        log: &Tensor,
        labels: &[u32],
        step: &Step,
    ) -> Result<Reading> {
        let (loss, delta) = cross_entropy(log, labels)?;
        if loss.is_broken() {
            return Err(Error::Diverged {
                block: "head".into(),
                what: "loss",
                value: loss.value()?,
                step: step.index,
            });
        }
        match &mut self.map {
            Map::Descent(linear) => linear.update(features, &delta, &mut self.optimiser, step)?,
            Map::Ridge(map) => map.add_labels(&rows(features)?, labels)?,
        }
        Ok(loss)
    }

    /// Tells the head that an epoch in which it learned has ended.
    ///
    /// # Errors
    /// [`Error::Unfit`] if a closed form has no solution.
    pub fn epoch_ended(&mut self) -> Result<()> {
        match &mut self.map {
            Map::Descent(_) => Ok(()),
            Map::Ridge(map) => map.solve().at(|| "head".into()),
        }
    }

    /// Whether the head learns at this step.
    pub fn is_learning(&self, step: &Step) -> bool {
        self.optimiser.span().contains(step)
    }

    /// The optimiser, whose state is part of a checkpoint.
    pub fn optimiser(&self) -> &Optimiser {
        &self.optimiser
    }

    /// The optimiser, to restore its state.
    pub fn optimiser_mut(&mut self) -> &mut Optimiser {
        &mut self.optimiser
    }
}

fn rows(features: &Input) -> Result<Tensor> {
    Ok(features.join()?.flatten_from(1)?.detach())
}
