//! PEPITA: a second forward pass, on the input plus the projected error.

use onward_core::candle_core::{Tensor, Var};
use onward_core::candle_nn::Init;
use onward_core::contract::goodness::beside_own_loss;
use onward_core::plugin::preset::Preset;
use onward_core::{
    kernels, Architecture, Batch, BuildContext, Error, GoodnessFn, Grade, Input, Lesson, Linear,
    LocalLayer, NegativeSampler, Objective, Optimiser, Prediction, Result, Role, Rule, Step,
    Targets, Views,
};

onward_core::settings! {
    /// Two views: the example, and the example plus the projected error of the network.
    ///
    /// `x′ = x + (p − y)·F` with the network's own prediction `p` and the one-hot label
    /// `y`. `F`, `(C, D)`, is random and fixed, uniform in `±strength·√(6/D)`. `(B, …)`
    /// to `(2·B, D)`.
    ///
    /// # Reference
    /// Dellaferrera and Kreiman, "Error-driven Input Modulation: Solving the Credit
    /// Assignment Problem without a Backward Pass", 2022
    /// (<https://arxiv.org/abs/2201.11665>).
    pub struct Modulated {
        /// The size of the projection.
        strength: f64 = 0.05, in onward_core::settings::Positive;
    }
}

/// The roles of the two passes, which no other sampler has. The second is no negative
/// view: its label is the true one.
const TWO_PASSES: [Role; 2] = [Role::Positive, Role::Positive];

/// Refuses the views of other samplers. `more` is what has to be set beside the sampler.
fn check_passes(place: &str, targets: &Targets, more: &str) -> Result<()> {
    let found = targets.roles();
    if found == TWO_PASSES {
        return Ok(());
    }
    let is_negative = |role: &&Role| **role == Role::Negative;
    let problem = format!(
        "found {} views of each example, {} of them negative; expected the two passes of the \
         sampler `modulated`: add --set sampler=modulated{more}",
        found.len(),
        found.iter().filter(is_negative).count()
    );
    Err(Error::unfit(place, problem))
}

struct Modulation {
    projection: Var,
}

impl Modulation {
    fn new(settings: &Modulated, context: &BuildContext) -> Result<Self> {
        let inputs = context.example.iter().product::<usize>();
        let up = settings.strength * (6. / inputs.max(1) as f64).sqrt();
        let init = Init::Uniform { lo: -up, up };
        let shape = (context.classes, inputs);
        Ok(Self {
            projection: context.vars.buffer("projection", shape, init)?,
        })
    }
}

impl NegativeSampler for Modulation {
    fn views(&self, batch: &Batch, prediction: &Prediction<'_>, _: &Step) -> Result<Views> {
        let (rows, log) = (batch.rows(), prediction.log_probabilities()?);
        let one_hot = kernels::one_hot(batch.labels()?, log.dim(1)?, log)?;
        let error = (log.exp()? - one_hot)?.to_dtype(rows.dtype())?;
        let modulated = (rows + kernels::matmul(&error, &self.projection)?)?;
        let both = Input::stacked(Tensor::cat(&[rows, &modulated.detach()], 0)?, 2)?;
        let views = Views::new(both, TWO_PASSES.to_vec())?;
        Ok(Views {
            targets: views.targets.that_tell_label(),
            ..views
        })
    }

    fn neutral(&self, batch: &Batch) -> Result<Input> {
        Input::of(batch.rows().clone())
    }
}

onward_core::register! {
    dyn NegativeSampler, "modulated",
    "the example, and the example plus its projected error (PEPITA 2022, arXiv 2201.11665)",
    |settings: Modulated, context| Ok(Box::new(Modulation::new(&settings, context)?))
}

onward_core::settings! {
    /// Rectified linear units that learn from the difference of two passes.
    ///
    /// `a = max(0, x·W)`, `(V·B, …)` to `(V·B, N)`. With the input `x′` and the activity
    /// `a′` of the second pass, `∂W = x′ᵀ·(a − a′) / B`. No gradient is used. All passes
    /// of a step have the same dropout mask. `W`, `(D, N)`, is drawn from `N(0, √(2/D))`.
    ///
    /// # Reference
    /// Dellaferrera and Kreiman, 2022 (<https://arxiv.org/abs/2201.11665>).
    pub struct TwoPasses {
        /// The number of units. Default: the architecture's `hidden`.
        units: Option<usize> = None, in 1..;
        /// The probability that a unit is dropped in a training step.
        dropout: f64 = 0., in 0. ..=0.95;
    }
}

struct Layer {
    linear: Linear,
    dropout: f64,
    purpose: String,
}

impl Layer {
    fn new(settings: &TwoPasses, context: &BuildContext) -> Result<Self> {
        let (inputs, units) = (context.inputs(), context.units_or(settings.units)?);
        let init = Init::Randn {
            mean: 0.,
            stdev: (2. / inputs.max(1) as f64).sqrt(),
        };
        Ok(Self {
            linear: Linear::new(&context.vars, inputs, units, init, false)?,
            dropout: settings.dropout,
            purpose: context.vars.path("dropout"),
        })
    }
}

impl LocalLayer for Layer {
    fn forward(&self, input: &Input, step: &Step) -> Result<Tensor> {
        let activity = self.linear.forward(input, true)?;
        if !step.train || self.dropout == 0. {
            return Ok(activity);
        }
        // The pass that gives the error has the mask of the other two.
        let stream = step.pass(0).stream(&self.purpose);
        let of_view = activity.narrow(0, 0, input.batch())?.ones_like()?;
        let mask = kernels::dropout(&of_view, self.dropout, &stream)?;
        let mask = Tensor::cat(&vec![mask; input.views()], 0)?;
        Ok((activity * mask)?)
    }

    fn learn(&mut self, lesson: &Lesson<'_>, optimiser: &mut Optimiser, step: &Step) -> Result<()> {
        let size = lesson.input.batch();
        check_passes("two_passes", lesson.targets, " --set goodness=second_pass")?;
        let passes = [0, size].map(|first| lesson.activity.narrow(0, first, size));
        let [first, second] = passes;
        let difference = ((first? - second?)? / size as f64)?;
        let input = lesson.input.join()?.flatten_from(1)?;
        let input = Input::of(input.narrow(0, size, size)?.contiguous()?)?;
        self.linear.update(&input, &difference, optimiser, step)
    }

    fn rule(&self) -> Option<Rule> {
        Some(Rule::SecondPass)
    }

    fn weight_images(&self) -> Result<Option<Tensor>> {
        Ok(Some(self.linear.weight_images()?))
    }
}

onward_core::register! {
    dyn LocalLayer, "two_passes",
    "learns from the difference of two passes (PEPITA 2022, arXiv 2201.11665)",
    |settings: TwoPasses, context| Ok(Box::new(Layer::new(&settings, context)?))
}

onward_core::settings! {
    /// A goodness for each class: the output layer, which learns from the second pass.
    ///
    /// `g = a·M`, `(B, …)` to `(B, C)`; `∂M = a′ᵀ·(p′ − y) / B` with the activity `a′`
    /// and the prediction `p′ = softmax(g′)` of the second pass. `M`, `(D, C)`, is drawn
    /// from `N(0, √(2/D))`. A layer that follows gradients gets that of the second pass,
    /// and is a local classifier; `two_passes` uses none.
    ///
    /// # Reference
    /// Dellaferrera and Kreiman, 2022 (<https://arxiv.org/abs/2201.11665>).
    pub struct SecondPass {}
}

struct Output {
    linear: Linear,
    classes: usize,
}

impl Output {
    fn new(context: &BuildContext) -> Result<Self> {
        let (inputs, classes) = (context.inputs(), context.classes);
        let init = Init::Randn {
            mean: 0.,
            stdev: (2. / inputs.max(1) as f64).sqrt(),
        };
        Ok(Self {
            linear: Linear::new(&context.vars, inputs, classes, init, false)?,
            classes,
        })
    }
}

/// The rows of the last view.
fn last(activity: &Tensor, views: usize) -> Result<Tensor> {
    let size = activity.dim(0)? / views.max(1);
    let rows = activity.flatten_from(1)?;
    Ok(rows.narrow(0, rows.dim(0)? - size, size)?.contiguous()?)
}

impl GoodnessFn for Output {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        self.linear
            .forward(&Input::of(activity.flatten_from(1)?)?, false)
    }

    fn classes(&self) -> Option<usize> {
        Some(self.classes)
    }

    fn gradient(&self, activity: &Tensor, upstream: &Tensor) -> Result<Tensor> {
        Ok(self
            .linear
            .joined_gradient(upstream)?
            .reshape(activity.shape())?)
    }

    fn uses_labels(&self, _: &Objective) -> bool {
        true
    }

    fn rule(&self, _: &Objective) -> Rule {
        Rule::LocalClassifier
    }

    fn grade(&self, activity: &Tensor, targets: &Targets, _: &Objective) -> Result<Grade> {
        check_passes("second_pass", targets, "")?;
        let labels = targets.labels()?;
        let goodness = self.goodness(activity)?;
        let of_second = last(&goodness, targets.roles().len())?;
        let objective = Objective {
            loss: onward_core::Loss::CrossEntropy,
            ..Objective::default()
        };
        let only = Targets::new(vec![Role::Positive])?.with_labels(Some(labels.to_vec()));
        let (loss, upstream) = objective.grade(&of_second, 0., &only)?;
        let of_second = self.linear.joined_gradient(&upstream)?;
        let first = goodness.dim(0)? - of_second.dim(0)?;
        let gradient = of_second.pad_with_zeros(0, first, 0)?;
        Ok(Grade {
            loss,
            gradient: Some(gradient.reshape(activity.shape())?),
            goodness: Some(goodness),
            upstream: Some(upstream),
            own: None,
        })
    }

    fn learn(
        &mut self,
        activity: &Tensor,
        grade: &Grade,
        targets: &Targets,
        optimiser: &mut Optimiser,
        step: &Step,
    ) -> Result<()> {
        let second = Input::of(last(activity, targets.roles().len())?)?;
        match &grade.upstream {
            Some(upstream) => self.linear.update(&second, upstream, optimiser, step),
            None => Ok(()),
        }
    }
}

/// The parts of the rule belong together.
const PRESETS: &[Preset] = &[Preset {
    name: "pepita",
    about: "the two passes and the layer of the rule, with plain descent",
    settings: r#"
        sampler = "modulated"
        layer = "two_passes"
        normalise = "none"
        optimiser = "sgd"
        lr = 1.0
        weight_decay = 0.0
        head = false
    "#,
}];

onward_core::register! {
    dyn GoodnessFn, "second_pass",
    "an output layer that learns from the second pass (PEPITA 2022, arXiv 2201.11665)",
    |_settings: SecondPass, context| Ok(Box::new(Output::new(context)?)),
    .presets(PRESETS).idle(|_, all| Ok(beside_own_loss(all, "second_pass")))
}

onward_core::preset! {
    dyn Architecture, "progressive", "pepita",
    "a second pass with the error in the input: one layer of 1024 units (PEPITA 2022)",
    r#"
        data = "mnist"
        epochs = 100
        batch = 64
        hidden = [1024]
        sampler = "modulated"
        layer = { name = "two_passes", dropout = 0.1 }
        goodness = "second_pass"
        normalise = "none"
        optimiser = "sgd"
        lr = 1.0
        weight_decay = 0.0
        schedule = "steps"
        readout_from = 1000 # the last layer alone
        head = false
    "#
}
