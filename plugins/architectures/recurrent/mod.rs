//! Architecture `recurrent`: layers with bottom-up and top-down input.

mod clamps;
mod net;

use onward_core::contract::head::{self, HeadSpec};
use onward_core::export::Table;
use onward_core::optim::OptimiserSpec;
use onward_core::plugin::preset::Preset;
use onward_core::settings::{Idle, Pick, Positive, Settings};
use onward_core::{Architecture, GoodnessFn, LocalLayer, Normalise, Objective, Result};

use self::net::RecurrentNet;

onward_core::settings! {
    /// Layers with bottom-up and top-down input: at every time step a layer sees the
    /// layers below and above at the previous step. A still image is treated as a video
    /// that does not change. Thus a layer also learns from the layers above it, although
    /// no derivative crosses a layer.
    ///
    /// `sₗ[t]` is the state of layer `l` of `L`, `norm(s₀)` are the normalised pixels,
    /// and `y` is the label above the last layer. All layers are updated at the same
    /// time:
    ///
    /// - `aₗ[t] = layer(norm(sₗ₋₁[t−1]) | norm(sₗ₊₁[t−1]))`, for the last layer
    ///   `layer(norm(s_{L−1}[t−1]) | y)`;
    /// - `sₗ[t] = damping·sₗ[t−1] + (1 − damping)·aₗ[t]`;
    /// - start: one bottom-up pass without top-down input,
    ///   `sₗ[0] = layer(norm(sₗ₋₁[0]) | 0)`.
    ///
    /// | tensor | shape | |
    /// |---|---|---|
    /// | `aₗ` | `(V·B, Nₗ)` | activity; layer `l` learns from its goodness |
    /// | `sₗ` | `(V·B, Nₗ)` | state; input of the neighbours, `(B, Nₗ)` at the start |
    /// | `y` | `(V·B, C)` | one-hot, or `(V·B, label_units)` projected |
    ///
    /// Every layer learns at every step `t = 1 … steps` from its own input and activity;
    /// the gradients of all steps are averaged into one update at the end, so all steps
    /// see the same weights. Running means, such as those of the peer normalisation, are
    /// updated at every step. Memory does not grow with `steps`: the factors of the pixels
    /// and of the label are summed over the steps first.
    ///
    /// The sampler determines the clamped inputs. An appended label, as from
    /// `label_concat`, is clamped above the last layer. Otherwise the whole view is
    /// clamped below, and there is no input from above. A class is predicted in two ways:
    ///
    /// - *search*: `argmax_c Σₜ Σₗ gₗ(aₗ[t] under class c)`, `t` within `window`;
    /// - *head*: a softmax over the normalised states of all layers at the start,
    ///   `log softmax(Σₗ norm(sₗ[0])·Wₗ)`, in one pass. It learns beside the layers and
    ///   gives samplers the network's own prediction.
    ///
    /// Examples `(T, C, H, W)` are videos of `T = steps` frames: frame `t` is clamped
    /// below at step `t`, and the first frame also at the start.
    ///
    /// With `maps` the pixels and all states are maps of one height and width, `sₗ` of
    /// shape `(V·B, hiddenₗ, H, W)`. The inputs from below and above are the channels of
    /// one image, as layers with local receptive fields need. The label is one more
    /// channel. Its pixel `p` belongs to class `p mod C`, so that a large enough field
    /// sees all classes.
    ///
    /// # Reference
    /// Hinton, "The Forward-Forward Algorithm", 2022, section 3.4
    /// (<https://arxiv.org/abs/2212.13345>); Hinton, "How to represent part-whole
    /// hierarchies in a neural network", 2021 (<https://arxiv.org/abs/2102.12627>). The
    /// paper does not say whether goodness is computed from the activity or from the
    /// damped state; here it is the activity.
    pub struct Recurrent {
        /// The width of each layer, starting at the first; with `maps`, its number of
        /// channels.
        hidden: Vec<usize> = vec![1000; 2], in 1..=1_000_000;
        /// Whether inputs and states are maps with the height and width of the images,
        /// for layers with local receptive fields.
        maps: bool = false;
        /// The layer, one for all.
        layer: Pick<dyn LocalLayer> = "dense".into();
        /// The goodness function, one for all layers.
        goodness: Pick<dyn GoodnessFn> = "sum_squares".into();
        /// The normalisation of the pixels, and of every state before a neighbour sees
        /// it.
        normalise: Normalise = Normalise::MeanSquare;
        /// The number of time steps in training, T.
        steps: usize = 8, in 1..=1000;
        /// The first and the last time step over which the search sums the goodness.
        window: Vec<usize> = vec![3, 5], in 1..;
        /// The fraction of its old state that a layer keeps.
        damping: f64 = 0.3, in 0. ..1.;
        /// Whether a new wrong label is drawn at every time step, from the head's current
        /// prediction for the negative view; otherwise one label for all steps, from the
        /// prediction at the start.
        redraw: bool = false;
        /// Norm of the top-down label input relative to the bottom-up input of the last
        /// layer. The sampler's `strength` has no effect beside it, unless the label is
        /// projected (`label_units`) or nothing is normalised.
        label_weight: f64 = 1., in Positive.up_to(1e6);
        /// The number of units of a layer that projects the label and learns like the
        /// others; 0 for no projection.
        label_units: usize = 0;
        /// Augmentation: training images are shifted by up to this many pixels,
        /// differently at every time step. The border is filled with 0: black, or with
        /// `standardise` the mean; `shift` fills it with black in both cases.
        jitter: usize = 0, in 0..=64;
        .. objective: Objective = Objective { temperature: 10., ..Objective::default() };
        .. optimiser: OptimiserSpec = OptimiserSpec { lr: 0.02, ..OptimiserSpec::default() };
        .. head_spec: HeadSpec = HeadSpec::default();
    }
}

const PRESETS: &[Preset] = &[
    Preset {
        name: "glom",
        about: "as in Hinton 2022, with half the width: two layers of 1000 units, hard \
                negatives, peer normalisation",
        settings: r#"
            data = "digits"
            epochs = 20
            batch = 100
            sampler = { name = "label_concat", negatives = "hard" }
            layer = { name = "dense", peer = 0.03 }
        "#,
    },
    Preset {
        name: "hinton",
        about: "as in Hinton 2022, section 3.4: two layers of 2000 units, 60 epochs; \
                with dropout, and learning rate and temperature for that width",
        settings: r#"
            data = "mnist"
            epochs = 60
            batch = 100
            hidden = [2000, 2000]
            sampler = { name = "label_concat", negatives = "hard" }
            layer = { name = "dense", peer = 0.03, dropout = 0.1 }
            temperature = 40
            lr = 0.007
        "#,
    },
    Preset {
        name: "nebuly",
        about: "as nebuly-ai's forward_forward app: projected label, wrong labels drawn \
                at every step, mean squares, Adam; but with the goodness of the \
                activity, not of the damped state, and one update for all steps",
        settings: r#"
            data = "mnist"
            epochs = 100
            batch = 5000
            hidden = [2000, 2000, 2000]
            sampler = { name = "label_concat", negatives = "hard" }
            layer = "dense"
            goodness = "mean_squares"
            theta = 2.0
            temperature = 1.0
            normalise = "unit_length"
            window = [2, 8]
            redraw = true
            label_units = 2000
            optimiser = "adam"
            lr = 0.03
            weight_decay = 0.0
            schedule = "constant"
        "#,
    },
    Preset {
        name: "cifar",
        about: "as in Hinton 2022 for CIFAR-10: two layers of 3072 units with local \
                receptive fields of 11×11, low activity is good; but with a symmetric \
                loss, six time steps, and flipped images",
        settings: r#"
            data = "cifar-10"
            epochs = 60
            batch = 100
            flip = true
            standardise = true
            hidden = [3, 3]
            maps = true
            layer = { name = "local", field = 11, padding = 5, peer = 0.03 }
            sampler = { name = "label_concat", negatives = "hard" }
            goodness = { name = "sum_squares", positive = "low" }
            loss = "symmetric"
            temperature = 300
            steps = 6
            window = [4, 6]
            lr = 0.01
            head_lr = 0.01
        "#,
    },
];

/// Samplers whose views have no label beside the example.
const NO_LABEL_ABOVE: [&str; 5] = [
    "plain",
    "label_overlay",
    "hybrid_images",
    "pairs",
    "modulated",
];

/// The settings without an effect beside others.
fn idle(own: &Table, all: &Table) -> Result<Vec<Idle>> {
    let settings = Recurrent::read(own)?;
    let mut idle = head::idle(&settings.optimiser, true, Some(&settings.head_spec));
    idle.extend(settings.objective.idle());
    let sampler = all.get("sampler").and_then(|sampler| sampler.get("name"));
    let above = ["label_concat", "label_planes"];
    let is_above = sampler.is_some_and(|name| above.iter().any(|other| *name == (*other).into()));
    let is_normalised = settings.label_units == 0 && settings.normalise != Normalise::None;
    if is_above && is_normalised {
        let because = "the label is normalised, and clamped above the last layer with \
                       `label_weight`";
        idle.extend(Idle::all(&["sampler.strength"], because));
    }
    if sampler.is_some_and(|name| NO_LABEL_ABOVE.iter().any(|other| *name == (*other).into())) {
        let because = "no label is clamped above the last layer; label_concat clamps it there";
        idle.extend(Idle::all(&["label_weight"], because));
    }
    if sampler == Some(&"plain".into()) {
        let because = "the sampler `plain` draws no wrong label";
        idle.extend(Idle::all(&["redraw"], because));
    }
    let because = "the layers see each other's states";
    idle.extend(Idle::all(&["layer.passes", "layer.passed_pool"], because));
    Ok(idle)
}

onward_core::register! {
    dyn Architecture, "recurrent",
    "layers with bottom-up and top-down input, a still image as a video \
     (Hinton 2022, arXiv 2212.13345)",
    |settings: Recurrent, context| Ok(Box::new(RecurrentNet::new(&settings, context)?)),
    .presets(PRESETS).idle(idle)
}
