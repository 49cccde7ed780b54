//! Goodness `projection`: a learned linear map from the activity to a goodness for each
//! class.

use onward_core::candle_core::Tensor;
use onward_core::candle_nn::Init;
use onward_core::flow::graph::{Graph, Node};
use onward_core::flow::sampled_classes::SampledClasses;
use onward_core::modules::cells::Cells;
use onward_core::modules::class_rows::ClassRows;
use onward_core::modules::pooled_linear::PooledLinear;
use onward_core::{
    kernels, Architecture, BuildContext, GoodnessFn, Grade, Objective, Optimiser, Result, Step,
    Targets,
};

onward_core::settings! {
    /// A goodness for each class: a linear map of the activity that learns with the
    /// layer.
    ///
    /// `g[b, c] = Σᵢ cell(a)[b, i]·M[i, c]`, where `M` is `(D, C)` and learns from the
    /// same loss. If `grid` is not 0, activities of images, `(B, N, H, W)`, are first
    /// averaged over a grid of `grid×grid` cells, which overlap where it does not divide
    /// the image. `(B, …)` to `(B, C)`.
    ///
    /// With the loss `cross_entropy` every block is a layer with a local classifier,
    /// without negatives. This is closer to deep supervision than to contrastive
    /// learning. The prediction of the network is the sum of the goodness of the blocks
    /// that are read out (`readout_from`). `M` starts at 0.
    ///
    /// # Reference
    /// Gong, Li, Abdulla, "Mono-Forward: Backpropagation-Free Algorithm", 2025
    /// (<https://arxiv.org/abs/2501.09238>), without averages; Nøkland and Eidnes,
    /// "Training Neural Networks with Local Error Signals", 2019
    /// (<https://arxiv.org/abs/1901.06656>), for the average.
    pub struct Projection {
        /// The number of cells per side for averaging the activities of images, at most one
        /// for each pixel; 0 for no averages.
        grid: usize = 0;
    }
}

struct Goodness {
    map: Map,
    classes: usize,
}

/// The weights of the map.
enum Map {
    /// A column for each class.
    Columns(Box<PooledLinear>),
    /// A row for each class, for steps that compare some of them alone.
    Rows { rows: ClassRows, cells: Cells },
}

impl Goodness {
    fn new(settings: &Projection, context: &BuildContext) -> Result<Self> {
        let (vars, classes) = (&context.vars, context.classes);
        let grid = super::grid_of_maps("projection", settings.grid, context)?;
        let cells = Cells::new(&context.input, grid);
        let map = match context.samples {
            0 => {
                let zero = Init::Const(0.);
                let linear = PooledLinear::new(vars, cells, classes, zero, false)?;
                Map::Columns(linear.into())
            }
            _ => Map::Rows {
                rows: ClassRows::new(vars, cells.inputs(), classes)?,
                cells,
            },
        };
        Ok(Self { map, classes })
    }
}

/// The classes that a step of one view compares, if it does not compare all.
fn sampled(targets: &Targets) -> Option<&SampledClasses> {
    targets.sampled().filter(|_| targets.roles().len() == 1)
}

impl GoodnessFn for Goodness {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        match &self.map {
            Map::Columns(linear) => linear.forward(activity),
            Map::Rows { rows, cells } => rows.forward(&cells.means(activity)?, None),
        }
    }

    fn classes(&self) -> Option<usize> {
        Some(self.classes)
    }

    fn graph(&self, activity: Node, graph: &mut Graph) -> Result<Node> {
        match &self.map {
            Map::Columns(linear) => linear.graph(activity, graph),
            Map::Rows { rows, cells } => rows.graph(cells.graph(activity, graph)?, graph),
        }
    }

    fn gradient(&self, activity: &Tensor, upstream: &Tensor) -> Result<Tensor> {
        match &self.map {
            Map::Columns(linear) => linear.gradient(activity, upstream),
            Map::Rows { rows, cells } => cells.gradient(activity, &rows.gradient(upstream, None)?),
        }
    }

    fn grade(&self, activity: &Tensor, targets: &Targets, objective: &Objective) -> Result<Grade> {
        let (Map::Rows { rows, cells }, Some(sampled)) = (&self.map, sampled(targets)) else {
            return Grade::of_goodness(self, activity, targets, objective);
        };
        let picked = rows.rows(Some(sampled))?;
        let goodness = kernels::matmul_transposed(&cells.means(activity)?, &picked)?;
        let (loss, upstream) = objective.grade_sampled(&goodness, sampled, targets)?;
        let gradient = kernels::matmul(&upstream, &picked)?;
        Ok(Grade {
            loss,
            gradient: Some(cells.gradient(activity, &gradient)?),
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
        match &mut self.map {
            Map::Columns(linear) => linear.update(activity, upstream, optimiser, step),
            Map::Rows { rows, cells } => {
                let averages = cells.means(activity)?;
                rows.update(&averages, upstream, sampled(targets), optimiser, step)
            }
        }
    }
}

onward_core::register! {
    dyn GoodnessFn, "projection",
    "linear map to a goodness for each class, for the loss cross_entropy \
     (Mono-Forward 2025, arXiv 2501.09238)",
    |settings: Projection, context| Ok(Box::new(Goodness::new(&settings, context)?)),
    .presets(super::CLASSIFIER)
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
