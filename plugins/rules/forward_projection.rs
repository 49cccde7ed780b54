//! Forward Projection: each layer is solved for targets made from its input and the
//! label.

use onward_core::candle_core::{Tensor, Var};
use onward_core::candle_nn::Init;
use onward_core::flow::graph::{Graph, Node};
use onward_core::modules::least_squares::LeastSquares;
use onward_core::settings::{Idle, Positive};
use onward_core::{
    kernels, plugin, Architecture, BuildContext, Error, Input, Lesson, LocalLayer, Optimiser,
    Result, Rule, Step,
};

onward_core::settings! {
    /// A fully connected layer that is solved in closed form at the end of each epoch.
    ///
    /// `a = max(0, x·W + b)`. `W` and `b` are the ridge regression of the targets `t =
    /// sign(x·Q) + sign(y·U)`, where `y` is the one-hot label and `Q`, `U` are random and
    /// fixed: a target has to carry the input and the label.
    ///
    /// | tensor   | shape      |                                               |
    /// |----------|------------|-----------------------------------------------|
    /// | `x`      | `(B, …)`   | flattened to `D` columns                      |
    /// | `Q`      | `(D, N)`   | drawn from `N(0, 1)`                          |
    /// | `U`      | `(C, N)`   | drawn from `N(0, 1)`                          |
    /// | `W; b`   | `(D + 1, N)` | drawn from `N(0, 1/√D)`; see [`LeastSquares`] |
    /// | activity | `(B, N)`   |                                               |
    ///
    /// The layers have to learn one after the other (`order = "greedy"`), since a layer's
    /// input changes when the layer below is solved.
    ///
    /// # Reference
    /// O'Shea, Hsu, Rajpurkar, "Closed-Form Feedback-Free Learning with Forward
    /// Projection", 2025 (<https://arxiv.org/abs/2501.16476>).
    pub struct ForwardProjection {
        /// The number of units. Default: the architecture's `hidden`.
        units: Option<usize> = None, in 1..;
        /// The ridge, relative to the mean of the diagonal of `XᵀX`.
        ridge: f64 = 0.01, in Positive;
    }
}

struct Layer {
    of_input: Var,
    of_label: Var,
    map: LeastSquares,
    classes: usize,
}

impl Layer {
    fn new(settings: &ForwardProjection, context: &BuildContext) -> Result<Self> {
        let (inputs, units) = (context.inputs(), context.units_or(settings.units)?);
        let (vars, classes) = (&context.vars, context.classes);
        let normal = |stdev| Init::Randn { mean: 0., stdev };
        let random = normal(1. / (inputs.max(1) as f64).sqrt());
        Ok(Self {
            of_input: vars.buffer("of_input", (inputs, units), normal(1.))?,
            of_label: vars.buffer("of_label", (classes, units), normal(1.))?,
            map: LeastSquares::new(vars, [inputs, units], settings.ridge, random)?,
            classes,
        })
    }

    /// The rows of an input, in the type of the variables: one-hot tokens have another.
    fn rows(&self, input: &Input) -> Result<Tensor> {
        let rows = input.join()?.flatten_from(1)?;
        Ok(rows.to_dtype(self.of_input.dtype())?)
    }
}

impl LocalLayer for Layer {
    fn forward(&self, input: &Input, _: &Step) -> Result<Tensor> {
        Ok(self.map.forward(&self.rows(input)?)?.relu()?.detach())
    }

    fn learn(&mut self, lesson: &Lesson<'_>, _: &mut Optimiser, _: &Step) -> Result<()> {
        if lesson.input.views() != 1 {
            let problem = "expected one view, without negatives; choose the sampler `plain`";
            return Err(Error::unfit("forward_projection", problem));
        }
        let rows = self.rows(lesson.input)?.contiguous()?;
        let labels = kernels::one_hot(lesson.targets.labels()?, self.classes, &rows)?;
        let of_input = kernels::matmul(&rows, &self.of_input)?.sign()?;
        let targets = (of_input + kernels::matmul(&labels, &self.of_label)?.sign()?)?;
        self.map.add(&rows, &targets)
    }

    fn graph(&self, x: Node, graph: &mut Graph) -> Result<Node> {
        let rows = self.map.graph(x, graph)?;
        Ok(graph.relu(rows))
    }

    fn uses_labels(&self) -> bool {
        true
    }

    fn rule(&self) -> Option<Rule> {
        Some(Rule::ClosedForm)
    }

    fn epoch_ended(&mut self, _: &Step) -> Result<()> {
        self.map.solve()
    }
}

onward_core::register! {
    dyn LocalLayer, "forward_projection",
    "solved for projections of its input and the label (O'Shea 2025, arXiv 2501.16476)",
    |settings: ForwardProjection, context| Ok(Box::new(Layer::new(&settings, context)?)),
    .idle(|_, all| {
        let mut idle = plugin::beside_own_rule(all, "forward_projection")?;
        if !idle.is_empty() {
            idle.extend(Idle::more_epochs(all));
        }
        Ok(idle)
    })
}

onward_core::preset! {
    dyn Architecture, "progressive", "forward_projection",
    "each layer in closed form, one pass over the data for each, then one for the head \
     (O'Shea 2025)",
    r#"
        data = "mnist"
        epochs = 1
        batch = 500
        standardise = true
        hidden = [2000, 2000]
        sampler = "plain"
        layer = { name = "forward_projection", ridge = 1.0 }
        loss = "none"
        normalise = "none"
        order = "greedy"
        readout_from = 1
        probe_epochs = 1
        head_rule = "ridge"
        head_ridge = 0.0001
    "#
}
