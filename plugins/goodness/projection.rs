//! Goodness `projection`: a learned linear map from the activity to a goodness for each
//! class.

use onward_core::candle_core::Tensor;
use onward_core::candle_nn::Init;
use onward_core::flow::graph::{Graph, Node};
use onward_core::modules::cells::Cells;
use onward_core::modules::pooled_linear::PooledLinear;
use onward_core::plugin::preset::Preset;
use onward_core::{
    Architecture, BuildContext, GoodnessFn, Grade, Optimiser, Result, Step, Targets,
};

onward_core::settings! {
    /// A goodness for each class: a linear map of the activity that learns with the
    /// layer.
    ///
    /// `g[b, c] = Σᵢ cell(a)[b, i]·M[i, c]`, where `M` is `(D, C)` and learns from the
    /// same loss. If `grid` is not 0, activities of images, `(B, N, H, W)`, are first
    /// averaged over a grid of `grid×grid` cells. `(B, …)` to `(B, C)`.
    ///
    /// With the loss `cross_entropy` every block is a layer with a local classifier,
    /// without negatives. This is closer to deep supervision than to contrastive
    /// learning. The prediction of the network is the sum of the blocks' goodness.
    ///
    /// # Reference
    /// Gong, Li, Abdulla, "Mono-Forward: Backpropagation-Free Algorithm", 2025
    /// (<https://arxiv.org/abs/2501.09238>), without averages; Nøkland and Eidnes,
    /// "Training Neural Networks with Local Error Signals", 2019
    /// (<https://arxiv.org/abs/1901.06656>), for the average.
    pub struct Projection {
        /// The number of cells per side for averaging the activities of images; 0 for no
        /// averages.
        grid: usize = 0;
    }
}

struct Goodness {
    linear: PooledLinear,
    classes: usize,
}

impl Goodness {
    fn new(settings: &Projection, context: &BuildContext) -> Result<Self> {
        let (vars, classes) = (&context.vars, context.classes);
        let grid = super::grid_of_maps("projection", settings.grid, context)?;
        let cells = Cells::new(&context.input, grid)?;
        let linear = PooledLinear::new(vars, cells, classes, Init::Const(0.), false)?;
        Ok(Self { linear, classes })
    }
}

impl GoodnessFn for Goodness {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        self.linear.forward(activity)
    }

    fn classes(&self) -> Option<usize> {
        Some(self.classes)
    }

    fn graph(&self, activity: Node, graph: &mut Graph) -> Result<Node> {
        self.linear.graph(activity, graph)
    }

    fn gradient(&self, activity: &Tensor, upstream: &Tensor) -> Result<Tensor> {
        self.linear.gradient(activity, upstream)
    }

    fn learn(
        &mut self,
        activity: &Tensor,
        grade: &Grade,
        _targets: &Targets,
        optimiser: &mut Optimiser,
        step: &Step,
    ) -> Result<()> {
        match &grade.upstream {
            Some(upstream) => self.linear.update(activity, upstream, optimiser, step),
            None => Ok(()),
        }
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
    "#,
}];

onward_core::register! {
    dyn GoodnessFn, "projection",
    "linear map to a goodness for each class, for the loss cross_entropy \
     (Mono-Forward 2025, arXiv 2501.09238)",
    |settings: Projection, context| Ok(Box::new(Goodness::new(&settings, context)?)),
    .presets(PRESETS)
}

onward_core::preset! {
    dyn Architecture, "progressive", "mono_forward",
    "a local classifier for each layer, one layer after the other; the last one \
     predicts (Mono-Forward 2025)",
    r#"
        data = "mnist"
        epochs = 15
        batch = 128
        standardise = true
        hidden = [1000, 1000]
        sampler = "plain"
        layer = "dense"
        goodness = "projection"
        loss = "cross_entropy"
        normalise = "none"
        order = "greedy"
        optimiser = "adam"
        lr = 0.0016
        weight_decay = 0.0
        schedule = "constant"
        readout_from = 1000 # the last layer alone
        head = false
    "#
}
