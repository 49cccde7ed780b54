//! Goodness `prototypes`: the cosine to a learned direction for each class.

use onward_core::candle_core::{Tensor, Var};
use onward_core::candle_nn::Init;
use onward_core::modules::cells::Cells;
use onward_core::modules::pooled_linear::PooledLinear;
use onward_core::optim::Gradient;
use onward_core::settings::Positive;
use onward_core::{
    kernels, Architecture, BuildContext, GoodnessFn, Grade, Input, LastResult, Normalise,
    Optimiser, Result, Step, Targets,
};

onward_core::settings! {
    /// A goodness for each class: the cosine of the activity to a prototype.
    ///
    /// `g[b, c] = scale·cos(z[b], P[c])`, `z = mean(a)·E`, where `mean` averages the
    /// pixels of a map. `E` and `P` learn from the same loss as the layer.
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
    /// Wu et al., "Distance-Forward Learning", 2024 (<https://arxiv.org/abs/2408.14925>),
    /// in a simplified form: their loss also has margins.
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
    embedding: PooledLinear,
    prototypes: Var,
    path: String,
    /// The last activity's embedding.
    embedded: LastResult<Tensor>,
}

impl Goodness {
    fn new(settings: &Prototypes, context: &BuildContext) -> Result<Self> {
        let cells = Cells::new(&context.input, Some(1));
        let (vars, classes) = (&context.vars, context.classes);
        let normal = |stdev| Init::Randn { mean: 0., stdev };
        let init = normal(1. / (cells.inputs().max(1) as f64).sqrt());
        let embedding = vars.scope("embedding");
        Ok(Self {
            scale: settings.scale,
            classes,
            embedding: PooledLinear::new(&embedding, cells, settings.dimensions, init, false)?,
            prototypes: vars.get("prototypes", (classes, settings.dimensions), normal(1.))?,
            path: vars.path("prototypes"),
            embedded: LastResult::default(),
        })
    }

    fn embedded(&self, activity: &Tensor) -> Result<Tensor> {
        if let Some(embedded) = self.embedded.get(activity) {
            return Ok(embedded);
        }
        let embedded = self.embedding.forward(activity)?;
        self.embedded.put(activity, embedded.clone());
        Ok(embedded)
    }

    /// The gradients with respect to the embedding and the prototypes.
    fn gradients(&self, activity: &Tensor, upstream: &Tensor) -> Result<[Tensor; 2]> {
        let embedded = self.embedded(activity)?;
        let upstream = (upstream * self.scale)?;
        let of_directions = kernels::matmul(&upstream, &directions(&self.prototypes)?)?;
        let of_prototypes = upstream.t()?.contiguous()?;
        let of_prototypes = kernels::matmul(&of_prototypes, &directions(&embedded)?)?;
        Ok([
            Normalise::UnitLength.gradient(&embedded, &of_directions)?,
            Normalise::UnitLength.gradient(&self.prototypes, &of_prototypes)?,
        ])
    }
}

/// The rows, scaled to length 1.
fn directions(rows: &Tensor) -> Result<Tensor> {
    let rows = Input::of(rows.detach())?.normalised(Normalise::UnitLength)?;
    rows.join()
}

impl GoodnessFn for Goodness {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        let embedded = directions(&self.embedded(activity)?)?;
        let prototypes = directions(&self.prototypes)?;
        Ok((kernels::matmul_transposed(&embedded, &prototypes)? * self.scale)?)
    }

    fn classes(&self) -> Option<usize> {
        Some(self.classes)
    }

    fn gradient(&self, activity: &Tensor, upstream: &Tensor) -> Result<Tensor> {
        let [of_embedding, _] = self.gradients(activity, upstream)?;
        self.embedding.gradient(activity, &of_embedding)
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
        // The update changes what is kept.
        self.embedded.take(activity);
        self.embedding
            .update(activity, &of_embedding, optimiser, step)?;
        let gradient = Gradient::Whole(&of_prototypes);
        optimiser.update(&self.path, &self.prototypes, gradient, step)
    }
}

onward_core::register! {
    dyn GoodnessFn, "prototypes",
    "cosine to a learned prototype of each class (Distance-Forward 2024, arXiv 2408.14925)",
    |settings: Prototypes, context| Ok(Box::new(Goodness::new(&settings, context)?)),
    .presets(super::CLASSIFIER)
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
