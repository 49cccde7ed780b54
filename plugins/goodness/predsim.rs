//! Goodness `predsim`: predictions, and similarities of the examples of a batch.

use onward_core::candle_core::Tensor;
use onward_core::candle_nn::Init;
use onward_core::contract::goodness::beside_own_loss;
use onward_core::flow::graph::{Graph, Node};
use onward_core::kernels::{self, Deviations, Directions};
use onward_core::modules::cells::Cells;
use onward_core::modules::conv::Convolved;
use onward_core::modules::pooled_linear::PooledLinear;
use onward_core::plugin::preset::Preset;
use onward_core::settings::{Idle, Settings};
use onward_core::{
    Architecture, BuildContext, Conv, Error, GoodnessFn, Grade, Input, LastResult, Linear, Loss,
    Objective, Optimiser, Reading, Result, Step, Targets,
};

onward_core::settings! {
    /// A goodness for each class, and a loss that makes examples of one class similar.
    ///
    /// `g = cell(a)·D + d` predicts the class. The loss of the layer is
    ///
    /// `L = (1 − β)·CE(g, y) + β·mean (S(σ(C·a)) − S(Y))²`
    ///
    /// over all pairs of examples, where `S(x)`, `(B, B)`, has the cosine similarities of
    /// the rows of `x` after the mean of each row is subtracted, and `Y` are the one-hot
    /// labels. For a map, `σ` is the standard deviation of each channel over the pixels;
    /// else it changes nothing.
    ///
    /// | tensor   | shape                           |                      |
    /// |----------|---------------------------------|----------------------|
    /// | `a`      | `(B, N)`; a map `(B, N, H, W)`  | the activity         |
    /// | `cell(a)`| `(B, K)`                        | of a map, averages   |
    /// | `D`, `d` | `(K, C)`, `(C,)`                | start at 0           |
    /// | `C`      | `(N, N)`; `(N, N, field, field)`| for the loss alone   |
    /// | `g`      | `(B, C)`                        | the goodness         |
    ///
    /// `C` starts as `N(0, 1/√inputs)`. `D` learns from the cross-entropy itself, not
    /// from `1 − β` of it, which is the same with Adam; with other optimisers it learns
    /// `1/(1 − β)` times as fast as by the loss. So with `β = 1` (*sim*) it is a
    /// probe that the layer does not learn from; with `β = 0` (*pred*) the layer is a
    /// local classifier. The layer's norm should be `batch`, and its slope above 0.
    ///
    /// # Reference
    /// Nøkland and Eidnes, "Training Neural Networks with Local Error Signals", 2019
    /// (<https://arxiv.org/abs/1901.06656>). There the network's prediction is that of an
    /// output layer; here it is that of the last layer's `D`.
    pub struct Predsim {
        /// The weight `β` of the similarities.
        beta: f64 = 0.99, in 0. ..=1.;
        /// Maps are averaged over a grid, the finest that leaves at most this many
        /// numbers for the prediction, but never fewer than one for each channel.
        inputs: usize = 2048, in 1..;
        /// Height and width of the kernels of `C` for maps, odd; 0 for no `C` at all. If
        /// the activity is no map, every other number means a matrix.
        field: usize = 3, in 0..=15;
    }
}

struct Goodness {
    beta: f64,
    classes: usize,
    decoder: PooledLinear,
    similarity: Similarity,
    /// What the last grade found for `C`.
    found: LastResult<Found>,
}

/// `C`.
enum Similarity {
    None,
    Linear(Linear),
    Conv(Conv),
}

/// The gradient with respect to `C·a`, and the convolution it was made by.
#[derive(Clone)]
struct Found {
    delta: Tensor,
    made: Option<Convolved>,
}

impl Goodness {
    fn new(settings: &Predsim, context: &BuildContext) -> Result<Self> {
        let (vars, input) = (&context.vars, &context.input[..]);
        let cells = Cells::at_most(input, settings.inputs);
        let decoder = vars.scope("decoder");
        let decoder = PooledLinear::new(&decoder, cells, context.classes, Init::Const(0.), true)?;
        let normal = |inputs: usize| Init::Randn {
            mean: 0.,
            stdev: 1. / (inputs.max(1) as f64).sqrt(),
        };
        let vars = vars.scope("similarity");
        let field = settings.field;
        let similarity = match input {
            _ if field == 0 || settings.beta == 0. => Similarity::None,
            &[channels, _, _] => {
                let init = normal(channels * field * field);
                Similarity::Conv(Conv::new(&vars, channels, channels, field, 1, init)?)
            }
            _ => {
                let inputs = context.inputs();
                Similarity::Linear(Linear::new(&vars, inputs, inputs, normal(inputs), false)?)
            }
        };
        Ok(Self {
            beta: settings.beta,
            classes: context.classes,
            decoder,
            similarity,
            found: LastResult::default(),
        })
    }

    /// The loss of the similarities, and its gradient with respect to the activity.
    fn similar(&self, activity: &Tensor, labels: &[u32]) -> Result<(Tensor, Tensor)> {
        let mut made = None;
        let mapped = match &self.similarity {
            Similarity::None => activity.clone(),
            Similarity::Linear(linear) => linear.forward(&flat(activity)?, false)?,
            Similarity::Conv(conv) => {
                let convolved = conv.forward(activity)?;
                made.insert(convolved).output.clone()
            }
        };
        let (loss, delta) = match mapped.dims() {
            [_, _, height, width] if height * width > 1 => {
                let deviations = Deviations::of(&mapped)?;
                let (loss, delta) = of_pairs(&deviations.values, labels, self.classes)?;
                (loss, deviations.gradient(&mapped, &delta)?)
            }
            _ => {
                let (loss, delta) = of_pairs(&mapped.flatten_from(1)?, labels, self.classes)?;
                (loss, delta.reshape(mapped.shape())?)
            }
        };
        let gradient = match (&self.similarity, &made) {
            (Similarity::Linear(linear), _) => linear.joined_gradient(&delta)?,
            (Similarity::Conv(conv), Some(made)) => conv.input_gradient(activity, made, &delta)?,
            _ => delta.clone(),
        };
        if !matches!(self.similarity, Similarity::None) {
            self.found.put(activity, Found { delta, made });
        }
        Ok((loss, gradient.reshape(activity.shape())?))
    }
}

fn flat(activity: &Tensor) -> Result<Input> {
    Input::of(activity.flatten_from(1)?)
}

impl GoodnessFn for Goodness {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        self.decoder.forward(activity)
    }

    fn classes(&self) -> Option<usize> {
        Some(self.classes)
    }

    fn gradient(&self, activity: &Tensor, upstream: &Tensor) -> Result<Tensor> {
        self.decoder.gradient(activity, upstream)
    }

    fn uses_labels(&self, _: &Objective) -> bool {
        true
    }

    fn graph(&self, activity: Node, graph: &mut Graph) -> Result<Node> {
        self.decoder.graph(activity, graph)
    }

    fn grade(&self, activity: &Tensor, targets: &Targets, _: &Objective) -> Result<Grade> {
        let labels = targets.labels()?;
        if targets.roles().len() != 1 || labels.len() != activity.dim(0)? {
            let problem = "expected one positive view with a label for each example; choose \
                           the sampler `plain`";
            return Err(Error::unfit("predsim", problem));
        }
        let goodness = self.goodness(activity)?;
        let objective = Objective {
            loss: Loss::CrossEntropy,
            ..Objective::default()
        };
        let (mut loss, upstream) = objective.grade(&goodness, 0., targets)?;
        let mut gradient = self.decoder.gradient(activity, &upstream)?;
        if self.beta > 0. {
            let (similar, below) = self.similar(activity, labels)?;
            loss = loss.times(1. - self.beta);
            loss.add(&Reading::of(&similar)?, self.beta)?;
            gradient = kernels::weighted(&gradient, 1. - self.beta, &below, self.beta)?;
        }
        Ok(Grade {
            loss,
            gradient: Some(gradient),
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
        let Some(upstream) = &grade.upstream else {
            return Ok(());
        };
        self.decoder.update(activity, upstream, optimiser, step)?;
        if matches!(self.similarity, Similarity::None) {
            return Ok(());
        }
        let mut found = self.found.take(activity);
        if found.is_none() {
            self.similar(activity, targets.labels()?)?;
            found = self.found.take(activity);
        }
        let Some(Found { delta, made }) = found else {
            return Ok(());
        };
        let delta = (delta * self.beta)?;
        match (&mut self.similarity, &made) {
            (Similarity::Linear(linear), _) => {
                linear.update(&flat(activity)?, &delta, optimiser, step)
            }
            (Similarity::Conv(conv), Some(made)) => {
                conv.update(activity, made, &delta, optimiser, step)
            }
            _ => Ok(()),
        }
    }
}

/// The mean of `(S(x) − S(Y))²` over all pairs of rows of `x`, `(B, N)`, and its gradient
/// with respect to `x`.
///
/// With the directions `u` of the rows and `E = u·uᵀ − S(Y)`, the gradient with respect
/// to `u` is `4/B²·E·u`.
fn of_pairs(x: &Tensor, labels: &[u32], classes: usize) -> Result<(Tensor, Tensor)> {
    let directions = Directions::of(x)?;
    let u = &directions.rows;
    let error = (kernels::matmul_transposed(u, u)? - similarities(labels, classes, x)?)?;
    let loss = error.sqr()?.mean_all()?;
    let pairs = labels.len() as f64;
    let delta = kernels::matmul(&(error * (4. / (pairs * pairs)))?, u)?;
    Ok((loss, directions.gradient(&delta)?))
}

/// `S(Y)`: 1 for a pair of one class, else `−1 / (C − 1)`.
fn similarities(labels: &[u32], classes: usize, like: &Tensor) -> Result<Tensor> {
    let other = -1. / classes.saturating_sub(1).max(1) as f32;
    let of_pair = |a: &u32, b: &u32| if a == b { 1. } else { other };
    let values = labels
        .iter()
        .flat_map(|a| labels.iter().map(move |b| of_pair(a, b)));
    let values = Tensor::from_iter(values, like.device())?;
    Ok(values
        .to_dtype(like.dtype())?
        .reshape((labels.len(), labels.len()))?)
}

/// It has its own loss and needs no negatives.
const PRESETS: &[Preset] = &[Preset {
    name: "classifier",
    about: "Adam and the schedule of the paper, without negatives",
    settings: r#"
        loss = "cross_entropy"
        sampler = "plain"
        optimiser = "adam"
        lr = 0.0005
        weight_decay = 0.0
        schedule = "steps"
        head = false
    "#,
}];

onward_core::register! {
    dyn GoodnessFn, "predsim",
    "predictions and similarities of pairs of examples (Nøkland and Eidnes 2019, \
     arXiv 1901.06656)",
    |settings: Predsim, context| Ok(Box::new(Goodness::new(&settings, context)?)),
    .presets(PRESETS).idle(|own, all| {
        let mut idle = beside_own_loss(all, "predsim");
        if Predsim::read(own)?.beta == 0. {
            idle.extend(Idle::all(&["field"], "similarities do not count (`beta = 0`)"));
        }
        Ok(idle)
    })
}

onward_core::preset! {
    dyn Architecture, "progressive", "predsim",
    "predictions and similarities, as in Nøkland and Eidnes 2019: three layers \
     of 1024 units",
    r#"
        data = "mnist"
        epochs = 100
        batch = 128
        shift = 2
        standardise = true
        hidden = [1024, 1024, 1024]
        sampler = "plain"
        layer = { name = "dense", norm = "batch", slope = 0.01 }
        goodness = "predsim"
        loss = "cross_entropy"
        optimiser = "adam"
        lr = 0.001
        weight_decay = 0.0
        schedule = "steps"
        dropout = 0.1
        normalise = "none"
        readout_from = 1000 # the last layer alone
        head = false
    "#
}

onward_core::preset! {
    dyn Architecture, "progressive", "predsim_convolutional",
    "the same rule in four convolutions",
    r#"
        data = "cifar-10"
        epochs = 40
        batch = 128
        shift = 4
        flip = true
        standardise = true
        hidden = [64, 128, 256, 512]
        sampler = "plain"
        layer = { name = "conv", norm = "batch", slope = 0.01 }
        goodness = "predsim"
        loss = "cross_entropy"
        optimiser = "adam"
        lr = 0.002
        weight_decay = 0.0
        schedule = "steps"
        normalise = "none"
        readout_from = 1000 # the last layer alone
        head = false
    "#
}

#[cfg(test)]
mod tests {
    use super::*;
    use onward_core::candle_core::{DType, Device};
    use onward_core::{Role, Vars};

    #[test]
    fn a_grade_is_kept_only_for_similarities_that_learn() -> Result<()> {
        for (field, is_kept) in [(0, false), (3, true)] {
            let mut context = BuildContext::new(Vars::new(1, DType::F32, &Device::Cpu), 1);
            context.classes = 2;
            let settings = Predsim {
                field,
                ..Predsim::default()
            };
            let goodness = Goodness::new(&settings, &context.with_input(&[3]))?;
            let activity = Tensor::new(&[[1f32, 2., 0.], [0., 1., 3.]], &Device::Cpu)?;
            let targets = Targets::new(vec![Role::Positive])?.with_labels(Some(vec![0, 1]));
            goodness.grade(&activity, &targets, &Objective::default())?;
            assert_eq!(goodness.found.take(&activity).is_some(), is_kept);
        }
        Ok(())
    }
}
