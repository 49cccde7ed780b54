//! Goodness `prototypes`: the cosine to a learned direction for each class.

use onward_core::candle_core::{Tensor, Var, D};
use onward_core::candle_nn::Init;
use onward_core::optim::Gradient;
use onward_core::plugin::preset::Preset;
use onward_core::settings::Positive;
use onward_core::{
    kernels, Architecture, BuildContext, GoodnessFn, Grade, Input, LastResult, Linear, Optimiser,
    Result, Step, Targets,
};

onward_core::settings! {
    /// A goodness for each class: the cosine of the activity to a prototype.
    ///
    /// `g[b, c] = scale·cos(z[b], P[c])`, `z = mean(a)·E`, where `mean` averages the pixels
    /// of a map. `E` and `P` learn from the same loss as the layer.
    ///
    /// | tensor | shape                        |                        |
    /// |--------|------------------------------|------------------------|
    /// | `a`    | `(B, …)`; a map `(B, N, H, W)` | the activity         |
    /// | `E`    | `(N, K)`                     | drawn from `N(0, 1/√N)` |
    /// | `P`    | `(C, K)`                     | drawn from `N(0, 1)`   |
    /// | `g`    | `(B, C)`                     | the goodness           |
    ///
    /// One pass predicts all classes, where a search over labels needs one for each.
    ///
    /// # Reference
    /// Wu et al., "Distance-Forward Learning", 2024 (<https://arxiv.org/abs/2408.14925>), in
    /// a simplified form: their loss also has margins.
    pub struct Prototypes {
        /// The length `K` of a prototype.
        dimensions: usize = 64, in 1..=100_000;
        /// The factor of the cosine.
        scale: f64 = 10., in Positive;
    }
}

struct Goodness {
    scale: f64,
    classes: usize,
    embedding: Linear,
    prototypes: Var,
    path: String,
    /// The last activity's embedding.
    embedded: LastResult<Tensor>,
}

/// The directions of rows, and the inverse of their lengths, `(R, 1)`.
struct Unit {
    rows: Tensor,
    inverse: Tensor,
}

impl Unit {
    fn of(x: &Tensor) -> Result<Self> {
        let inverse = (x.sqr()?.sum_keepdim(D::Minus1)? + 1e-12)?
            .sqrt()?
            .recip()?;
        Ok(Self {
            rows: x.broadcast_mul(&inverse)?,
            inverse,
        })
    }

    /// The gradient with respect to the rows before they were scaled:
    /// `(δ − u·(u·δ)) / ‖x‖`.
    fn gradient(&self, delta: &Tensor) -> Result<Tensor> {
        let along = (&self.rows * delta)?.sum_keepdim(D::Minus1)?;
        let across = (delta - self.rows.broadcast_mul(&along)?)?;
        Ok(across.broadcast_mul(&self.inverse)?)
    }
}

impl Goodness {
    fn new(settings: &Prototypes, context: &BuildContext) -> Result<Self> {
        let channels = match context.input[..] {
            [channels, _, _] => channels,
            _ => context.inputs(),
        };
        let (vars, classes) = (&context.vars, context.classes);
        let normal = |stdev| Init::Randn { mean: 0., stdev };
        let init = normal(1. / (channels.max(1) as f64).sqrt());
        let embedding = vars.scope("embedding");
        Ok(Self {
            scale: settings.scale,
            classes,
            embedding: Linear::new(&embedding, channels, settings.dimensions, init, false)?,
            prototypes: vars.get("prototypes", (classes, settings.dimensions), normal(1.))?,
            path: vars.path("prototypes"),
            embedded: LastResult::default(),
        })
    }

    fn averaged(&self, activity: &Tensor) -> Result<Tensor> {
        match activity.dims()[..] {
            [_, _, height, width] => {
                Ok(kernels::cell_means(activity, [height, width])?.flatten_from(1)?)
            }
            _ => Ok(activity.flatten_from(1)?),
        }
    }

    fn embedded(&self, activity: &Tensor) -> Result<Tensor> {
        if let Some(embedded) = self.embedded.get(activity) {
            return Ok(embedded);
        }
        let input = Input::of(self.averaged(activity)?)?;
        let embedded = self.embedding.forward(&input, false)?;
        self.embedded.put(activity, embedded.clone());
        Ok(embedded)
    }

    /// The gradients with respect to the embedding and the prototypes.
    fn gradients(&self, activity: &Tensor, upstream: &Tensor) -> Result<[Tensor; 2]> {
        let directions = Unit::of(&self.embedded(activity)?)?;
        let prototypes = Unit::of(&self.prototypes)?;
        let upstream = (upstream * self.scale)?;
        let of_embedding = directions.gradient(&upstream.matmul(&prototypes.rows)?)?;
        let of_prototypes = upstream.t()?.contiguous()?.matmul(&directions.rows)?;
        Ok([of_embedding, prototypes.gradient(&of_prototypes)?])
    }
}

impl GoodnessFn for Goodness {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        let directions = Unit::of(&self.embedded(activity)?)?;
        let prototypes = Unit::of(&self.prototypes)?;
        let cosines = kernels::matmul_transposed(&directions.rows, &prototypes.rows)?;
        Ok((cosines * self.scale)?)
    }

    fn classes(&self) -> Option<usize> {
        Some(self.classes)
    }

    fn gradient(&self, activity: &Tensor, upstream: &Tensor) -> Result<Tensor> {
        let [of_embedding, _] = self.gradients(activity, upstream)?;
        let gradient = self.embedding.joined_gradient(&of_embedding)?;
        match activity.dims()[..] {
            [rows, channels, height, width] => {
                let means = gradient.reshape((rows, channels, 1, 1))?;
                kernels::cell_means_gradient(&means, [height, width])
            }
            _ => Ok(gradient.reshape(activity.shape())?),
        }
    }

    fn learn(
        &mut self,
        activity: &Tensor,
        grade: &Grade,
        _targets: &Targets,
        optimiser: &mut Optimiser,
        step: &Step,
    ) -> Result<()> {
        let Some(upstream) = &grade.upstream else {
            return Ok(());
        };
        let [of_embedding, of_prototypes] = self.gradients(activity, upstream)?;
        self.embedded.take(activity);
        let input = Input::of(self.averaged(activity)?)?;
        self.embedding
            .update(&input, &of_embedding, optimiser, step)?;
        let gradient = Gradient::Whole(&of_prototypes);
        optimiser.update(&self.path, &self.prototypes, gradient, step)
    }
}

/// A goodness for each class has the loss of a classifier and needs no negatives.
const PRESETS: &[Preset] = &[Preset {
    name: "classifier",
    about: "the loss of a local classifier, without negatives",
    settings: r#"
        loss = "cross_entropy"
        sampler = "plain"
        optimiser = "adam"
        lr = 0.001
        weight_decay = 0.0
        head = false
    "#,
}];

onward_core::register! {
    dyn GoodnessFn, "prototypes",
    "cosine to a learned prototype of each class (Distance-Forward 2024, arXiv 2408.14925)",
    |settings: Prototypes, context| Ok(Box::new(Goodness::new(&settings, context)?)),
    .presets(PRESETS)
}

onward_core::preset! {
    dyn Architecture, "progressive", "prototypes",
    "cosines to class prototypes, a local classifier in each layer (Distance-Forward 2024)",
    r#"
        data = "mnist"
        epochs = 40
        batch = 128
        standardise = true
        hidden = [1000, 1000, 1000]
        sampler = "plain"
        layer = { name = "dense", norm = "batch", dropout = 0.2 }
        goodness = "prototypes"
        loss = "cross_entropy"
        normalise = "none"
        optimiser = "adam"
        lr = 0.001
        weight_decay = 0.0
        schedule = "cosine"
        head = false
    "#
}
