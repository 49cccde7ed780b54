//! Goodness `cafo`: a predictor for each layer, solved in closed form.

use onward_core::candle_core::Tensor;
use onward_core::candle_nn::Init;
use onward_core::contract::goodness::beside_own_loss;
use onward_core::contract::head::without_optimiser;
use onward_core::export::{Table, Value};
use onward_core::flow::graph::{Graph, Node};
use onward_core::modules::cells::Cells;
use onward_core::modules::least_squares::LeastSquares;
use onward_core::plugin::preset::Preset;
use onward_core::settings::{Idle, Positive};
use onward_core::{
    kernels, plugin, Architecture, BuildContext, Error, GoodnessFn, Grade, Objective, Optimiser,
    Result, Rule, Step, Targets,
};

onward_core::settings! {
    /// A goodness for each class by ridge regression, solved at the end of every epoch.
    /// The layer does not learn: it stays random, unless it has a rule of its own.
    ///
    /// `g = h·M` with `h = (cell(a) | 1)` and `M = (HᵀH + λ·I)⁻¹·HᵀY`, with the rows `H`
    /// of the epoch, the one-hot labels `Y`, and `λ = ridge·trace(HᵀH) / (D + 1)`. The
    /// sums are in double precision.
    ///
    /// | tensor    | shape                          |                               |
    /// |-----------|--------------------------------|-------------------------------|
    /// | `a`       | `(B, …)`; a map `(B, N, H, W)` | the activity                  |
    /// | `cell(a)` | `(B, D)`                       | of a map, averages of cells   |
    /// | `M`       | `(D + 1, C)`                   | starts at 0                   |
    /// | `g`       | `(B, C)`                       | the goodness, about 0 to 1    |
    ///
    /// # Reference
    /// Zhao et al., "The Cascaded Forward Algorithm for Neural Network Training", 2023
    /// (<https://arxiv.org/abs/2303.09728>), where the ridge is 0.
    pub struct Cafo {
        /// The ridge, relative to the mean of the diagonal of `HᵀH`.
        ridge: f64 = 0.0001, in Positive;
        /// The number of cells per side for averaging the activities of images, at most one
        /// for each pixel; 0 for no averages.
        grid: usize = 0;
    }
}

struct Goodness {
    classes: usize,
    cells: Cells,
    map: LeastSquares,
}

impl Goodness {
    fn new(settings: &Cafo, context: &BuildContext) -> Result<Self> {
        let grid = super::grid_of_maps("cafo", settings.grid, context)?;
        let cells = Cells::new(&context.input, grid);
        let sizes = [cells.inputs(), context.classes];
        let start = Init::Const(0.);
        Ok(Self {
            classes: context.classes,
            cells,
            map: LeastSquares::new(&context.vars, sizes, settings.ridge, start)?,
        })
    }
}

impl GoodnessFn for Goodness {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        self.map.forward(&self.cells.means(activity)?)
    }

    fn classes(&self) -> Option<usize> {
        Some(self.classes)
    }

    fn graph(&self, activity: Node, graph: &mut Graph) -> Result<Node> {
        let means = self.cells.graph(activity, graph)?;
        self.map.graph(means, graph)
    }

    fn uses_labels(&self, _: &Objective) -> bool {
        true
    }

    fn rule(&self, _: &Objective) -> Rule {
        Rule::ClosedForm
    }

    /// The loss is the mean squared error of the last epoch's solution.
    fn grade(&self, activity: &Tensor, targets: &Targets, _: &Objective) -> Result<Grade> {
        let labels = targets.labels()?;
        if targets.roles().len() != 1 {
            let problem =
                "expected one positive view, without negatives; choose the sampler `plain`";
            return Err(Error::unfit("cafo", problem));
        }
        let goodness = self.goodness(activity)?;
        let error = (&goodness - kernels::one_hot(labels, self.classes, &goodness)?)?;
        Ok(Grade {
            loss: onward_core::Reading::of(&error.sqr()?)?,
            gradient: None,
            goodness: Some(goodness),
            upstream: None,
            own: None,
        })
    }

    fn learn(
        &mut self,
        activity: &Tensor,
        _: &Grade,
        targets: &Targets,
        _: &mut Optimiser,
        _: &Step,
    ) -> Result<()> {
        self.map
            .add_labels(&self.cells.means(activity)?, targets.labels()?)
    }

    fn epoch_ended(&mut self, _: &Step) -> Result<()> {
        self.map.solve()
    }
}

/// Whether no layer of an architecture with these settings has a rule of its own.
fn stays_random(settings: &Table) -> Result<bool> {
    let layer = settings.get("layer");
    let layers = match layer.and_then(Value::as_array) {
        Some(all) => &all[..],
        None => layer.map_or(&[][..], std::slice::from_ref),
    };
    for name in layers
        .iter()
        .filter_map(|layer| layer.get("name")?.as_str())
    {
        if plugin::has_own_rule(name)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// It is solved in one epoch.
const PRESETS: &[Preset] = &[Preset {
    name: "closed_form",
    about: "one epoch, without negatives",
    settings: r#"
        epochs = 1
        sampler = "plain"
        head = false
    "#,
}];

onward_core::register! {
    dyn GoodnessFn, "cafo",
    "a predictor in closed form, solved at the end of an epoch (CaFo 2023, arXiv 2303.09728)",
    |settings: Cafo, context| Ok(Box::new(Goodness::new(&settings, context)?)),
    .presets(PRESETS).idle(|_, all| {
        let mut idle = beside_own_loss(all, "cafo");
        if !idle.is_empty() {
            let because = "layers stay random beside the goodness cafo, which is solved for";
            idle.extend(without_optimiser(all, because));
            idle.extend(Idle::all(&["layer.peer", "layer.peer_momentum"], because));
            if stays_random(all)? {
                idle.extend(Idle::more_epochs(all));
            }
        }
        Ok(idle)
    })
}

onward_core::preset! {
    dyn Architecture, "progressive", "cafo",
    "random convolutions, a predictor in closed form for each (CaFo 2023): one epoch",
    r#"
        data = "mnist"
        epochs = 1
        batch = 500
        standardise = true
        hidden = [32, 128, 512]
        sampler = "plain"
        layer = { name = "conv", norm = "batch", field = 5 }
        goodness = [{ name = "cafo", grid = 14 }, { name = "cafo", grid = 7 }, "cafo"]
        normalise = "none"
        readout_from = 1
        head = false
    "#
}
