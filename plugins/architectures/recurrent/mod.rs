//! Architecture `recurrent`: layers that hear from above as well as from below.

mod clamps;
mod net;

use onward_core::contract::head::HeadSpec;
use onward_core::optim::OptimiserSpec;
use onward_core::plugin::registry::Preset;
use onward_core::settings::{Pick, Positive};
use onward_core::{Architecture, GoodnessFn, LocalLayer, Normalise, Objective};

use self::net::RecurrentNet;

onward_core::settings! {
    /// Layers that hear, at every time step, from the layer below and from the layer above at the step before: a still
    /// image is treated as a video that does not change, so that a layer learns from what follows it as well, with no
    /// derivative crossing a layer.
    ///
    /// With the state `sₗ[t]` of layer `l` of `L`, `norm(s₀)` being the normalised pixels and the label `y` standing
    /// above the last layer, all layers step at once:
    ///
    /// - `aₗ[t] = layer(norm(sₗ₋₁[t−1]) | norm(sₗ₊₁[t−1]))`, above the last layer `layer(norm(s_{L−1}[t−1]) | y)`;
    /// - `sₗ[t] = damping·sₗ[t−1] + (1 − damping)·aₗ[t]`;
    /// - start: one pass from the bottom up in which nothing is heard from above, `sₗ[0] = layer(norm(sₗ₋₁[0]) | 0)`.
    ///
    /// | tensor  | shape        |                                                          |
    /// |---------|--------------|----------------------------------------------------------|
    /// | `aₗ`    | `(V·B, Nₗ)`  | activity; its goodness is what layer `l` learns from      |
    /// | `sₗ`    | `(V·B, Nₗ)`  | state; what the neighbours hear, `(B, Nₗ)` at the start   |
    /// | `y`     | `(V·B, C)`   | one-hot, or `(V·B, label_units)` projected                |
    ///
    /// Every layer learns at every step `t = 1 … steps` from its own input and activity; the gradients of all steps are
    /// averaged into one update at the end, so all steps see the weights from before. Memory does not grow with `steps`:
    /// what the pixels and the label are multiplied by is summed over the steps first.
    ///
    /// The sampler says what is clamped. A label beside the example, as `label_concat` puts it, stands above the last
    /// layer. Otherwise the whole view is clamped below, and nothing stands above. A class is predicted in two ways:
    ///
    /// - *search*: `argmax_c Σₜ Σₗ gₗ(aₗ[t] under class c)`, `t` within `window`;
    /// - *head*: a softmax over the normalised states of all layers at the start, `log softmax(Σₗ norm(sₗ[0])·Wₗ)`: one
    ///   pass. It learns beside the layers and is what samplers hear as the network's own prediction.
    ///
    /// Examples `(T, C, H, W)` are videos of `T = steps` frames: frame `t` is below at step `t`, the first one at the
    /// start too.
    ///
    /// With `maps` the pixels and all states are maps of one height and width, `sₗ` being `(V·B, hiddenₗ, H, W)`: a layer
    /// hears below and above as the channels of one image, which is what layers of local fields need. The label is one
    /// channel more, whose pixels are dealt to the classes, pixel `p` to class `p mod C`, so that every field of more
    /// pixels than classes sees all of it.
    ///
    /// # Reference
    /// Hinton, "The Forward-Forward Algorithm", 2022, section 3.4 (<https://arxiv.org/abs/2212.13345>); Hinton, "How to
    /// represent part-whole hierarchies in a neural network", 2021 (<https://arxiv.org/abs/2102.12627>). The paper does
    /// not say whether goodness is that of the activity or of the damped state: here it is the activity's.
    pub struct Recurrent {
        /// The width of each layer, from the first on; with `maps`, its channels.
        hidden: Vec<usize> = vec![1000; 2], in 1..=1_000_000;
        /// Whether every layer keeps the height and the width of the images, and hears its neighbours pixel by pixel.
        maps: bool = false;
        /// The kind of all layers.
        layer: Pick<dyn LocalLayer> = "dense".into();
        /// The goodness of all layers.
        goodness: Pick<dyn GoodnessFn> = "sum_squares".into();
        /// What is done to the pixels, and to every state before a neighbour hears it.
        normalise: Normalise = Normalise::MeanSquare;
        /// Time steps of training, T.
        steps: usize = 8, in 1..=1000;
        /// The first and the last time step whose goodness the search sums up.
        window: Vec<usize> = vec![3, 5], in 1..;
        /// How much of its old state a layer keeps.
        damping: f64 = 0.3, in 0. ..1.;
        /// Whether a wrong label is drawn anew at every time step, from what the head makes of the negative view by then;
        /// otherwise once for all of them, from the prediction at the start.
        redraw: bool = false;
        /// How loud the label is: the length of what stands above the last layer, relative to what that hears from below; the
        /// sampler's `strength` is normalised away.
        label_weight: f64 = 1., in Positive.up_to(1e6);
        /// The units of a layer that the label goes through on its way down, with a rule of its own; 0 for the label itself.
        label_units: usize = 0;
        /// Training images are moved by up to this many pixels at every time step, each step another way.
        jitter: usize = 0, in 0..=64;
        .. objective: Objective = Objective { temperature: 10., ..Objective::default() };
        .. optimiser: OptimiserSpec = OptimiserSpec { lr: 0.02, ..OptimiserSpec::default() };
        .. head_spec: HeadSpec = HeadSpec::default();
    }
}

const PRESETS: &[Preset] = &[
    Preset {
        name: "glom",
        about: "two layers of 1000 units, hard negatives, peer normalisation: Hinton's of 2022, half as wide",
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
        about: "as in Hinton 2022, section 3.4: two layers of 2000 units, 60 epochs; with dropout, and rate and temperature for that width",
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
        about:
            "as nebuly-ai's forward_forward app: label projected, wrong labels drawn at every step, mean squares, Adam; but the activity is graded, not the damped state, and all steps make one update",
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
        about:
            "Hinton's of 2022 for CIFAR-10: two layers of 3072 units with local fields of 11×11, low activity is good; but the views of an image are weighed against each other, in six time steps, and images are flipped",
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

onward_core::register! {
    dyn Architecture, "recurrent", "layers that hear from above and below, a still image as a video (Hinton 2022, arXiv 2212.13345)",
    |settings: Recurrent, context| Ok(Box::new(RecurrentNet::new(&settings, context)?)),
    .presets(PRESETS)
}
