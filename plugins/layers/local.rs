//! Layer `local`.

use onward_core::candle_core::Tensor;
use onward_core::candle_nn::Init;
use onward_core::kernels::Gate;
use onward_core::modules::locally_connected::{Fields, LocallyConnected};
use onward_core::modules::peer_norm::PeerNorm;
use onward_core::settings::{Idle, Settings};
use onward_core::{BuildContext, Input, Lesson, LocalLayer, Optimiser, Result, Step};

onward_core::settings! {
    /// Local receptive fields: a convolution without weight sharing; every location of
    /// the grid has its own weights.
    ///
    /// `a[n, l] = max(0, Σ_f x[field f of l]·W[l, f, n] + b[l, n])`; a location sees all
    /// channels of its field, in images or in another layer of this kind. The cost is
    /// `2·V·B·C·field²·N` operations per location, and the same for its gradient.
    ///
    /// | tensor | shape | |
    /// |---|---|---|
    /// | input | `(V·B, C, H, W)` | `(V·B, H, W)` is one channel |
    /// | `W` | `(L, C·field², N)` | drawn from `N(0, 1/√(C·field²))` |
    /// | `b` | `(L·N,)` | starts at 0 |
    /// | activity | `(V·B, N, gridₕ, grid_w)` | `grid = ⌊(H + 2·padding − field) / stride⌋ + 1` |
    ///
    /// Hinton's network for MNIST, with grids of 4×4, 3×3 and 2×2 locations, is the
    /// preset `unsupervised_local` of `progressive`.
    ///
    /// # Reference
    /// Hinton, "The Forward-Forward Algorithm", 2022, section 3.2
    /// (<https://arxiv.org/abs/2212.13345>).
    pub struct Receptive {
        /// The number of channels at each location. Default: the architecture's `hidden`.
        units: Option<usize> = None, in 1..;
        /// Height and width of a field, in pixels.
        field: usize = 3, in 1..=1024;
        /// The number of pixels between the fields of neighbouring locations.
        stride: usize = 1, in 1..;
        /// The number of zeros around the image.
        padding: usize = 0, in 0..=1024;
        /// Strength of the peer normalisation; Hinton uses 0.03.
        peer: f64 = 0., in 0. ..;
        /// The fraction of the running mean of the activities that a step keeps.
        peer_momentum: f64 = 0.9, in 0. ..1.;
    }
}

struct Layer {
    local: LocallyConnected,
    peer: Option<PeerNorm>,
}

impl Layer {
    fn new(settings: &Receptive, context: &BuildContext) -> Result<Self> {
        let (units, vars) = (context.units_or(settings.units)?, &context.vars);
        let Receptive {
            field,
            stride,
            padding,
            ..
        } = *settings;
        let fields = Fields::new(context.image()?, field, stride, padding)?;
        let init = Init::Randn {
            mean: 0.,
            stdev: 1. / (fields.numbers() as f64).sqrt(),
        };
        let count = fields.grid().iter().product::<usize>() * units;
        let peer = PeerNorm::new(vars, count, settings.peer, settings.peer_momentum)?;
        Ok(Self {
            local: LocallyConnected::new(vars, fields, units, init)?,
            peer,
        })
    }
}

impl LocalLayer for Layer {
    fn forward(&self, input: &Input, _step: &Step) -> Result<Tensor> {
        self.local.forward(input)
    }

    fn learn(&mut self, lesson: &Lesson<'_>, optimiser: &mut Optimiser, step: &Step) -> Result<()> {
        let (peer, rows) = (self.peer.as_ref(), lesson.positive_rows());
        let gradient = PeerNorm::gate(
            peer,
            lesson.activity,
            lesson.gradient()?,
            rows,
            Gate::default(),
        )?;
        self.local.update(lesson.input, gradient, optimiser, step)
    }

    fn weight_images(&self) -> Result<Option<Tensor>> {
        Ok(Some(self.local.weight_images()?))
    }
}

onward_core::register! {
    dyn LocalLayer, "local",
    "local receptive fields, weights not shared, peer normalisation \
     (Hinton 2022, arXiv 2212.13345)",
    |settings: Receptive, context| Ok(Box::new(Layer::new(&settings, context)?)),
    .idle(|own, _| Ok(match Receptive::read(own)?.peer {
        0. => Idle::all(&["peer_momentum"], "there is no peer normalisation (`peer = 0`)"),
        _ => Vec::new(),
    }))
}
