//! Goodness `class_groups`: each class has its own units.

use onward_core::candle_core::{Tensor, D};
use onward_core::flow::graph::{Graph, Node};
use onward_core::{kernels, Architecture, BuildContext, Error, GoodnessFn, Result};

onward_core::settings! {
    /// A goodness for each class: the mean over the units that belong to it.
    ///
    /// The `N` units, of a map the `N` channels, are divided among the `C` classes in
    /// order: class `c` has the units `c·N/C` to `(c+1)·N/C`, over all pixels. With `M`
    /// numbers `a` of class `c`
    ///
    /// `g[b, c] = (1/M)·Σ a²` (`of = "squares"`) or `g[b, c] = (1/M)·Σ a` (`of =
    /// "values"`).
    ///
    /// `(B, N, …)` to `(B, C)`. With the loss `cross_entropy` it is a local classifier
    /// without weights of its own: the units of a class learn to be active for its
    /// examples alone. `N` must be a multiple of `C`.
    ///
    /// # Reference
    /// Papachristodoulou et al., "Convolutional Channel-Wise Competitive Learning for the
    /// Forward-Forward Algorithm", 2023 (<https://arxiv.org/abs/2312.12668>), for
    /// squares; Sun et al., "DeeperForward", 2025, for values.
    pub struct ClassGroups {
        /// The mean of the squared or of the plain activities.
        of: Moment = Moment::Squares;
        /// The goodness is multiplied by it, before the loss.
        scale: f64 = 1., in onward_core::settings::Positive;
    }
}

onward_core::choices! {
    /// What is averaged.
    pub enum Moment {
        /// The squared activities.
        Squares = "squares",
        /// The activities.
        Values = "values",
    }
}

struct Goodness {
    settings: ClassGroups,
    classes: usize,
}

impl Goodness {
    fn new(settings: ClassGroups, context: &BuildContext) -> Result<Self> {
        let (units, classes) = (context.input.first().copied().unwrap_or(0), context.classes);
        if units == 0 || units % classes.max(1) != 0 {
            let problem = format!(
                "found a layer of {units} units, expected a multiple of the {classes} classes; \
                 change `hidden`"
            );
            return Err(Error::unfit("class_groups", problem));
        }
        Ok(Self { settings, classes })
    }

    /// The numbers of each class of each example, `(B·C, M)`.
    fn grouped(&self, activity: &Tensor) -> Result<Tensor> {
        let (rows, numbers) = (activity.dim(0)?, activity.elem_count());
        let of_class = numbers / (rows * self.classes).max(1);
        Ok(activity
            .contiguous()?
            .reshape((rows * self.classes, of_class))?)
    }
}

impl GoodnessFn for Goodness {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        let groups = self.grouped(activity)?;
        let mean = match self.settings.of {
            Moment::Squares => (kernels::sum_squares(&groups)? / groups.dim(1)? as f64)?,
            Moment::Values => groups.mean(D::Minus1)?,
        };
        Ok((mean * self.settings.scale)?.reshape(((), self.classes))?)
    }

    fn classes(&self) -> Option<usize> {
        Some(self.classes)
    }

    fn graph(&self, activity: Node, graph: &mut Graph) -> Result<Node> {
        let numbers = graph.shape(activity).iter().product::<usize>();
        let values = match self.settings.of {
            Moment::Squares => graph.multiply(activity, activity),
            Moment::Values => activity,
        };
        let sums = graph.sums(values, self.classes);
        let of_class = (numbers / self.classes).max(1);
        graph.times(sums, self.settings.scale / of_class as f64)
    }

    fn gradient(&self, activity: &Tensor, upstream: &Tensor) -> Result<Tensor> {
        let groups = self.grouped(activity)?;
        let each = self.settings.scale / groups.dim(1)?.max(1) as f64;
        let of_class = upstream.flatten_all()?;
        let gradient = match self.settings.of {
            Moment::Squares => kernels::scale_rows_by(&groups, &of_class, 2. * each)?,
            Moment::Values => (of_class.unsqueeze(1)? * each)?
                .broadcast_as(groups.shape())?
                .contiguous()?,
        };
        Ok(gradient.reshape(activity.shape())?)
    }
}

onward_core::register! {
    dyn GoodnessFn, "class_groups",
    "the mean over the units of each class (CwComp 2023, arXiv 2312.12668; DeeperForward 2025)",
    |settings: ClassGroups, context| Ok(Box::new(Goodness::new(settings, context)?)),
    .presets(super::CLASSIFIER)
}

onward_core::preset! {
    dyn Architecture, "progressive", "class_groups",
    "four convolutions whose channels belong to classes (CwComp 2023), without augmentation",
    r#"
        data = "cifar-10"
        epochs = 20
        batch = 100
        standardise = true
        hidden = [100, 200, 400, 800]
        sampler = "plain"
        layer = { name = "conv", norm = "batch" }
        goodness = { name = "class_groups", scale = 5.0 }
        loss = "cross_entropy"
        dropout = 0.2
        normalise = "none"
        optimiser = "adam"
        lr = 0.001
        weight_decay = 0.0
        schedule = "cosine"
        head = false
    "#
}
