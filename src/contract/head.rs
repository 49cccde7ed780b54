//! A linear readout of activities. It is trained separately and never changes a block.

use candle_core::Tensor;
use candle_nn::Init;
use toml::{Table, Value};

use crate::contract::loss::cross_entropy;
use crate::error::{Error, Located, Result};
use crate::flow::graph::{Graph, Node};
use crate::flow::input::Input;
use crate::flow::reading::Reading;
use crate::flow::sampled_classes::SampledClasses;
use crate::flow::step::Step;
use crate::flow::vars::Vars;
use crate::kernels;
use crate::modules::class_rows::ClassRows;
use crate::modules::least_squares::LeastSquares;
use crate::modules::linear::Linear;
use crate::optim::{Algorithm, Optimiser, OptimiserSpec, Span};
use crate::settings::{Idle, Positive};

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
    samples_classes: bool,
}

impl HeadPlan {
    /// The same for steps that compare some of the classes alone:
    /// [`Head::learn_sampled`].
    pub fn with_sampled_classes(mut self) -> Self {
        self.samples_classes = self.ridge.is_none();
        self
    }
}

impl From<OptimiserSpec> for HeadPlan {
    fn from(optimiser: OptimiserSpec) -> Self {
        Self {
            optimiser,
            ridge: None,
            samples_classes: false,
        }
    }
}

/// The settings of layers that learn by an optimiser.
const BY_RATE: [&str; 4] = ["optimiser", "lr", "layer_lr", "weight_decay"];

/// The settings of layers and of a head that have no effect. `layers` is the optimiser
/// of the layers, `learn` whether they follow it; `head` is `None` without a head,
/// which shares momentum and schedule with the layers.
pub fn idle(layers: &OptimiserSpec, learn: bool, head: Option<&HeadSpec>) -> Vec<Idle> {
    let descending = head.filter(|head| head.head_rule == HeadRule::Descent);
    let of_head = descending.is_some_and(|head| has_momentum(head.head_optimiser));
    let of_layers = learn && has_momentum(layers.optimiser);
    let mut idle = Vec::new();
    if !learn {
        idle.extend(Idle::all(&BY_RATE, "no layer learns by an optimiser"));
    }
    if !(of_head || of_layers) {
        idle.extend(Idle::all(&["momentum"], NO_MOMENTUM));
    }
    if !learn && descending.is_none() {
        idle.extend(Idle::all(&["schedule"], "nothing learns by an optimiser"));
    }
    let by_descent = ["head_optimiser", "head_lr", "head_weight_decay"];
    match head.map(|head| head.head_rule) {
        None => {
            let because = "there is no head";
            idle.extend(Idle::all(&["head_rule", "head_ridge"], because));
            idle.extend(Idle::all(&by_descent, because));
        }
        Some(HeadRule::Ridge) => {
            idle.extend(Idle::all(
                &by_descent,
                "the head is solved for (`head_rule = ridge`)",
            ));
        }
        Some(HeadRule::Descent) => {
            let because = "the head is not solved for (`head_rule = descent`)";
            idle.extend(Idle::all(&["head_ridge"], because));
        }
    }
    idle
}

/// Whether an algorithm uses the setting `momentum`.
fn has_momentum(algorithm: Algorithm) -> bool {
    matches!(algorithm, Algorithm::Sgd | Algorithm::Muon)
}

/// Whether the optimiser of the head does, in the settings of an architecture, complete.
fn head_has_momentum(settings: &Table) -> bool {
    let value = settings.get("head_optimiser").cloned();
    let algorithm = value.and_then(|value| value.try_into().ok());
    algorithm.is_none_or(has_momentum)
}

const NO_MOMENTUM: &str = "no optimiser of this run has a momentum";

/// Whether the settings of an architecture, complete, have a head that learns by descent.
pub fn descends(settings: &Table) -> bool {
    let is = |key: &str, value: Value| settings.get(key) == Some(&value);
    is("head_rule", "descent".into()) && !is("head", false.into())
}

/// The settings of an architecture that have no effect where neither its layers nor their
/// goodness follow an optimiser.
pub fn without_optimiser(settings: &Table, because: &str) -> Vec<Idle> {
    let mut idle = Idle::all(&BY_RATE, because);
    if !descends(settings) {
        idle.extend(Idle::all(&["momentum", "schedule"], because));
    } else if !head_has_momentum(settings) {
        idle.extend(Idle::all(&["momentum"], NO_MOMENTUM));
    }
    idle
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
            samples_classes: false,
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
    /// As descent, in steps that compare some of the classes.
    Sampled(ClassRows),
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
            None if plan.samples_classes => Map::Sampled(ClassRows::new(vars, inputs, classes)?),
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
            Map::Sampled(map) => map.forward(&rows(features)?, None)?,
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
            Map::Sampled(map) => map.graph(features, graph)?,
            Map::Ridge(map) => map.graph(features, graph)?,
        };
        Ok(graph.log_softmax(scores))
    }

    /// One step, from what [`Head::log_probabilities`] returned for `features`; returns
    /// the cross-entropy in nats. `log` is `(B, C)`, and `labels` has a class for each of
    /// its rows.
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
        check_loss(&loss, step)?;
        let optimiser = &mut self.optimiser;
        match &mut self.map {
            Map::Descent(linear) => linear.update(features, &delta, optimiser, step)?,
            Map::Sampled(map) => map.update(&rows(features)?, &delta, None, optimiser, step)?,
            Map::Ridge(map) => map.add_labels(&rows(features)?, labels)?,
        }
        Ok(loss)
    }

    /// As [`Head::learn`], from the features alone, with the softmax of some classes.
    /// Returns its cross-entropy in nats. `features` has a row for each of `labels`.
    ///
    /// # Errors
    /// [`Error::Unfit`] if the head was not made for it
    /// ([`HeadPlan::with_sampled_classes`]); [`Error::Diverged`] if the loss is not
    /// finite.
    pub fn learn_sampled(
        &mut self,
        features: &Input,
        sampled: &SampledClasses,
        labels: &[u32],
        step: &Step,
    ) -> Result<Reading> {
        let Map::Sampled(map) = &mut self.map else {
            let problem = "compares all classes, expected one that compares some of them";
            return Err(Error::unfit("head", problem));
        };
        let x = rows(features)?;
        let log = sampled.log_softmax(&map.forward(&x, Some(sampled))?)?;
        let (loss, delta) = cross_entropy(&log, &sampled.places(labels)?)?;
        check_loss(&loss, step)?;
        map.update(&x, &delta, Some(sampled), &mut self.optimiser, step)?;
        Ok(loss)
    }

    /// Whether it may learn from some of the classes: [`Head::learn_sampled`].
    pub(crate) fn samples_classes(&self) -> bool {
        matches!(self.map, Map::Sampled(_))
    }

    /// Tells the head that an epoch in which it learned has ended.
    ///
    /// # Errors
    /// [`Error::Unfit`] if a closed form has no solution.
    pub fn epoch_ended(&mut self) -> Result<()> {
        match &mut self.map {
            Map::Descent(_) | Map::Sampled(_) => Ok(()),
            Map::Ridge(map) => map.solve().at(|| "head".into()),
        }
    }

    /// Whether it is in closed form.
    pub(crate) fn is_solved(&self) -> bool {
        matches!(self.map, Map::Ridge(_))
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

fn check_loss(loss: &Reading, step: &Step) -> Result<()> {
    if !loss.is_broken() {
        return Ok(());
    }
    Err(Error::Diverged {
        block: "head".into(),
        what: "loss",
        value: loss.value()?,
        step: step.index,
    })
}

fn rows(features: &Input) -> Result<Tensor> {
    Ok(features.join()?.flatten_from(1)?.detach())
}
