//! The contract of a goodness function.

use std::sync::Arc;

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use toml::Table;

use crate::contract::loss::{Loss, Objective};
use crate::contract::rule::Rule;
use crate::error::{Error, Result};
use crate::flow::graph::{self, Graph, Node};
use crate::flow::reading::Reading;
use crate::flow::step::Step;
use crate::flow::views::Targets;
use crate::kernels;
use crate::optim::Optimiser;
use crate::settings::Idle;

crate::choices! {
    /// The activity that counts as good.
    pub enum Polarity {
        /// High activity for positive views.
        High = "high",
        /// Low activity for positive views: the goodness and its threshold change their
        /// sign.
        Low = "low",
    }
}

impl Polarity {
    /// 1 or −1.
    pub fn sign(self) -> f64 {
        match self {
            Self::High => 1.,
            Self::Low => -1.,
        }
    }

    /// The threshold in force: `theta`, which is that of high activity, or else `default`.
    /// For low activity it is negative, whatever the sign of `theta`.
    pub fn threshold(self, theta: Option<f64>, default: f64) -> f64 {
        match (self, theta) {
            (_, None) => default,
            (Self::High, Some(theta)) => theta,
            (Self::Low, Some(theta)) => -theta.abs(),
        }
    }

    /// A goodness of high activity, or its negative.
    ///
    /// # Errors
    /// Errors of candle.
    pub fn of(self, goodness: Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::High => goodness,
            Self::Low => goodness.neg()?,
        })
    }
}

/// A layer's score of its activity: high for what it should accept, low for what it
/// should reject.
///
/// ```
/// use onward_core::candle_core::{Device, Tensor};
/// use onward_core::{GoodnessFn, Loss, Objective, Result, Role, Targets};
///
/// /// The sum of the activities.
/// struct Total;
///
/// impl GoodnessFn for Total {
///     fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
///         Ok(activity.flatten_from(1)?.sum(1)?)
///     }
/// }
///
/// // One example: the positive view has the activity [1, 2], the negative view [0, 1].
/// let activity = Tensor::new(&[[1f32, 2.], [0., 1.]], &Device::Cpu)?;
/// assert_eq!(Total.goodness(&activity)?.to_vec1::<f32>()?, [3., 1.]);
///
/// // The loss ½·[−(g⁺ − θ) + (g⁻ − θ)] falls where the positive view's activity grows.
/// let objective = Objective { loss: Loss::Unbounded, ..Objective::default() };
/// let targets = Targets::new(vec![Role::Positive, Role::Negative])?;
/// let grade = Total.grade(&activity, &targets, &objective)?;
/// assert_eq!(grade.loss.value()?, -1.);
/// assert_eq!(grade.gradient.unwrap().to_vec2::<f32>()?, [[-0.5, -0.5], [0.5, 0.5]]);
/// # Ok::<(), onward_core::Error>(())
/// ```
///
/// # For implementors
/// Only [`goodness`](Self::goodness) has to be written.
///
/// Guaranteed to you: an activity of at least two dimensions, its length not normalised.
///
/// Expected of you: finite values for finite activities; a row's goodness computed from
/// that row alone; variables made through
/// [`BuildContext::vars`](crate::BuildContext::vars).
pub trait GoodnessFn: Send + Sync {
    /// The goodness of every row of an activity `(R, …)`: `(R,)`; `(R, C)` with a
    /// column per class; or `(R, P, C)` with a column per class at each of `P`
    /// positions of a sequence.
    ///
    /// # Errors
    /// Errors of candle.
    fn goodness(&self, activity: &Tensor) -> Result<Tensor>;

    /// The number of columns `C` if there is one per class; by default the goodness has
    /// one value per row.
    fn classes(&self) -> Option<usize> {
        None
    }

    /// The goodness above which an activity of `units` numbers counts as positive,
    /// unless a setting overrides it; by default 0.
    fn threshold(&self, _units: usize) -> f64 {
        0.
    }

    /// The threshold in force for an activity of `units` numbers: the setting `theta`, or
    /// else [`threshold`](Self::threshold). A goodness whose sign is a setting overrides it
    /// with [`Polarity::threshold`].
    fn theta(&self, objective: &Objective, units: usize) -> f64 {
        objective.theta.unwrap_or_else(|| self.threshold(units))
    }

    /// The gradient of `Σ upstream·goodness` with respect to the activity, of the
    /// activity's shape.
    ///
    /// `upstream` has the shape of the goodness. The default finds the gradient with
    /// candle's autograd; a closed form saves a pass or two over the activity.
    ///
    /// # Errors
    /// [`Error::Usage`] if autograd does not go back through the goodness; errors of
    /// candle.
    fn gradient(&self, activity: &Tensor, upstream: &Tensor) -> Result<Tensor> {
        let activity = Var::from_tensor(activity)?;
        let goodness = self.goodness(&activity)?;
        check_tracked("goodness", &goodness)?;
        match kernels::backward(&goodness, upstream)?.remove(&activity) {
            Some(gradient) => Ok(gradient.detach()),
            None => Ok(activity.zeros_like()?.detach()),
        }
    }

    /// The loss of an activity, and its gradient with respect to the activity.
    ///
    /// The default applies the objective's loss to the goodness. Override it for a loss
    /// that is not a function of each row's goodness: a threshold per role, a
    /// similarity of pairs of rows. [`Grade::by_autograd`] helps.
    ///
    /// # Errors
    /// [`Error::Unfit`] if the loss cannot be taken of this goodness or these targets.
    fn grade(&self, activity: &Tensor, targets: &Targets, objective: &Objective) -> Result<Grade> {
        Grade::of_goodness(self, activity, targets, objective)
    }

    /// Whether [`grade`](Self::grade) or [`learn`](Self::learn) looks at labels; by
    /// default if the loss does. Where they do not, the framework hides the labels.
    fn uses_labels(&self, objective: &Objective) -> bool {
        objective.loss.uses_labels()
    }

    /// The class of the rule by which its block learns; by default a local classifier
    /// with a loss of labels, else contrast.
    fn rule(&self, objective: &Objective) -> Rule {
        match objective.loss.uses_labels() {
            true => Rule::LocalClassifier,
            false => Rule::Contrast,
        }
    }

    /// Updates the goodness's own variables, such as a projection to classes. The
    /// default follows the gradients that [`Grade::by_autograd`] found, if there are
    /// any.
    ///
    /// # Errors
    /// Errors of the update.
    fn learn(
        &mut self,
        _activity: &Tensor,
        grade: &Grade,
        _targets: &Targets,
        optimiser: &mut Optimiser,
        step: &Step,
    ) -> Result<()> {
        if let Some(gradients) = &grade.own {
            // A goodness without variables has none to update.
            optimiser.apply_found(gradients, step)?;
        }
        Ok(())
    }

    /// Adds what [`goodness`](Self::goodness) computes to a graph for other programs,
    /// given the activity, `(R, …)`: the goodness as columns, `(R, 1)` or `(R, C)`. By
    /// default the goodness cannot be exported.
    ///
    /// # Errors
    /// [`Error::Unfit`] if it cannot.
    fn graph(&self, _activity: Node, _graph: &mut Graph) -> Result<Node> {
        Err(Error::unfit("goodness", graph::NOT_EXPORTED))
    }

    /// Called once after the last step of every epoch in which the block learns; does
    /// nothing by default. Rules in closed form solve here for what they have summed up
    /// in [`learn`](Self::learn).
    ///
    /// # Errors
    /// Errors of the closed-form solution.
    fn epoch_ended(&mut self, _step: &Step) -> Result<()> {
        Ok(())
    }
}

/// A boxed goodness forwards all calls.
impl<T: GoodnessFn + ?Sized> GoodnessFn for Box<T> {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        (**self).goodness(activity)
    }

    fn classes(&self) -> Option<usize> {
        (**self).classes()
    }

    fn threshold(&self, units: usize) -> f64 {
        (**self).threshold(units)
    }

    fn theta(&self, objective: &Objective, units: usize) -> f64 {
        (**self).theta(objective, units)
    }

    fn gradient(&self, activity: &Tensor, upstream: &Tensor) -> Result<Tensor> {
        (**self).gradient(activity, upstream)
    }

    fn grade(&self, activity: &Tensor, targets: &Targets, objective: &Objective) -> Result<Grade> {
        (**self).grade(activity, targets, objective)
    }

    fn uses_labels(&self, objective: &Objective) -> bool {
        (**self).uses_labels(objective)
    }

    fn rule(&self, objective: &Objective) -> Rule {
        (**self).rule(objective)
    }

    fn learn(
        &mut self,
        activity: &Tensor,
        grade: &Grade,
        targets: &Targets,
        optimiser: &mut Optimiser,
        step: &Step,
    ) -> Result<()> {
        (**self).learn(activity, grade, targets, optimiser, step)
    }

    fn graph(&self, activity: Node, graph: &mut Graph) -> Result<Node> {
        (**self).graph(activity, graph)
    }

    fn epoch_ended(&mut self, step: &Step) -> Result<()> {
        (**self).epoch_ended(step)
    }
}

/// The settings of an architecture that have no effect beside a goodness with a loss of
/// its own. `settings` are those of the architecture; without a loss a block has no
/// goodness.
pub fn beside_own_loss(settings: &Table, name: &str) -> Vec<Idle> {
    if settings.get("loss") == Some(&Loss::None.word().into()) {
        return Vec::new();
    }
    let because = format!("the goodness {name} has a loss of its own");
    Idle::all(&["loss", "theta", "temperature"], because)
}

/// The loss of an activity, and its gradients.
#[derive(Clone, Debug)]
pub struct Grade {
    /// The loss.
    pub loss: Reading,
    /// Its gradient with respect to the activity, of the activity's shape. `None`: the
    /// layer does not learn.
    pub gradient: Option<Tensor>,
    /// The goodness of every row, for reports; `None` if the loss is not one of a
    /// goodness.
    pub goodness: Option<Tensor>,
    /// The gradient with respect to the goodness, of its shape.
    pub upstream: Option<Tensor>,
    /// Gradients with respect to the goodness's own variables.
    pub own: Option<Arc<GradStore>>,
}

impl Grade {
    /// The objective's loss of the goodness of all rows: the default of
    /// [`GoodnessFn::grade`].
    ///
    /// # Errors
    /// [`Error::Unfit`] if the loss cannot be taken of this goodness or these targets.
    pub fn of_goodness<G: GoodnessFn + ?Sized>(
        of: &G,
        activity: &Tensor,
        targets: &Targets,
        objective: &Objective,
    ) -> Result<Self> {
        let (goodness, rows) = (of.goodness(activity)?, activity.dim(0)?);
        if goodness.dims().first() != Some(&rows) {
            return Err(Error::shape(
                "goodness",
                goodness.dims(),
                format!("{rows} rows"),
            ));
        }
        let units = activity.elem_count() / rows.max(1);
        let theta = of.theta(objective, units);
        let (loss, upstream) = objective.grade(&goodness, theta, targets)?;
        Ok(Self {
            loss,
            gradient: Some(of.gradient(activity, &upstream)?),
            goodness: Some(goodness),
            upstream: Some(upstream),
            own: None,
        })
    }

    /// A loss that candle can differentiate: `loss` computes it from the activity, as a
    /// tensor of one number.
    ///
    /// The gradients with respect to the activity and to all variables that the loss is
    /// computed with are found in one backward pass, which ends at the activity.
    ///
    /// # Errors
    /// [`Error::Usage`] if autograd does not go back through the loss; errors of `loss`
    /// and of candle.
    pub fn by_autograd(
        activity: &Tensor,
        loss: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<Self> {
        let activity = Var::from_tensor(&activity.detach())?;
        let loss = loss(activity.as_tensor())?;
        check_tracked("loss", &loss)?;
        let mut gradients = loss.backward()?;
        let gradient = match gradients.remove(&activity) {
            Some(gradient) => gradient.detach(),
            None => activity.zeros_like()?.detach(),
        };
        Ok(Self {
            loss: Reading::of(&loss)?,
            gradient: Some(gradient),
            goodness: None,
            upstream: None,
            own: Some(Arc::new(gradients)),
        })
    }
}

/// Refuses a result through which autograd does not go back: its gradient would be zero
/// and nothing would ever learn.
fn check_tracked(what: &str, result: &Tensor) -> Result<()> {
    if result.track_op() {
        return Ok(());
    }
    let problem = format!(
        "autograd does not go back through the {what}, so that it has no gradient; compute it \
         from the activity with operations of candle or `onward::kernels`, without `detach`, \
         or give the gradient in closed form"
    );
    Err(Error::usage(what, problem))
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    struct Cubes;

    impl GoodnessFn for Cubes {
        fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
            Ok(activity.powf(3.)?.sum(1)?)
        }
    }

    #[test]
    fn the_default_gradient_is_found_by_autograd() -> Result<()> {
        let activity = Tensor::new(&[[1f64, 2.], [3., 0.]], &Device::Cpu)?;
        let upstream = Tensor::new(&[1f64, -1.], &Device::Cpu)?;
        let gradient = Cubes.gradient(&activity, &upstream)?.to_vec2::<f64>()?;
        assert_eq!(gradient, [[3., 12.], [-27., 0.]]); // ±3·a²
        Ok(())
    }

    #[test]
    fn a_goodness_without_a_gradient_is_refused() -> Result<()> {
        struct Detached;

        impl GoodnessFn for Detached {
            fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
                kernels::sum_squares(&activity.detach())
            }
        }

        let activity = Tensor::ones((2, 3), DType::F32, &Device::Cpu)?;
        let upstream = Tensor::ones(2, DType::F32, &Device::Cpu)?;
        let error = Detached.gradient(&activity, &upstream).unwrap_err();
        assert!(error.to_string().contains("detach"), "{error}");
        let loss = |a: &Tensor| Ok(a.detach().sqr()?.sum_all()?);
        let error = Grade::by_autograd(&activity, loss).unwrap_err();
        assert!(error.to_string().contains("detach"), "{error}");
        Ok(())
    }

    #[test]
    fn a_goodness_of_kernels_has_a_gradient_in_every_type() -> Result<()> {
        struct Squares;

        impl GoodnessFn for Squares {
            fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
                kernels::sum_squares(activity)
            }
        }

        for dtype in [DType::F32, DType::F64] {
            let activity = Tensor::new(&[[1f64, 2.]], &Device::Cpu)?.to_dtype(dtype)?;
            let upstream = Tensor::ones(1, dtype, &Device::Cpu)?;
            let gradient = Squares.gradient(&activity, &upstream)?;
            assert_eq!(gradient.to_dtype(DType::F64)?.to_vec2::<f64>()?, [[2., 4.]]);
        }
        Ok(())
    }

    #[test]
    fn a_loss_by_autograd_has_gradients_of_activity_and_variables() -> Result<()> {
        let activity = Tensor::new(&[[1f64, 2.]], &Device::Cpu)?;
        let map = Var::new(&[[3f64], [4.]], &Device::Cpu)?;
        // L = (a·M)² with a·M = 11: ∂a = 22·Mᵀ, ∂M = 22·aᵀ.
        let grade = Grade::by_autograd(&activity, |a| Ok(a.matmul(&map)?.sqr()?.sum_all()?))?;
        assert_eq!(grade.loss.value()?, 121.);
        assert_eq!(grade.gradient.unwrap().to_vec2::<f64>()?, [[66., 88.]]);
        let own = grade.own.unwrap();
        assert_eq!(own.get(&map).unwrap().to_vec2::<f64>()?, [[22.], [44.]]);
        Ok(())
    }
}
