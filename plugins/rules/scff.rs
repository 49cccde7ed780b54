//! SCFF: pairs of examples without labels, and a threshold for each role.

use onward_core::candle_core::Tensor;
use onward_core::contract::goodness::beside_own_loss;
use onward_core::data::images::moved;
use onward_core::kernels::{self, ChannelStats};
use onward_core::settings::Finite;
use onward_core::{
    Architecture, Batch, BuildContext, Error, GoodnessFn, Grade, Input, NegativeSampler, Objective,
    Prediction, Reading, Result, Role, Step, Targets, Views,
};

onward_core::settings! {
    /// Pairs of examples without labels: an example with itself, and with another one.
    ///
    /// Both halves of a pair have the same weights, so a layer sees their sum:
    /// `x⁺ = s(x) + s′(x)`, `x⁻ = s(x) + s′(x′)` with the next example `x′` of the batch.
    /// `s` and `s′` shift each image at random. `(B, …)` to `(2·B, …)`. The neutral view
    /// is `x + x`.
    ///
    /// The length of a sum tells how much its halves are alike. With `standardise` it is
    /// kept: the architecture's `normalise` leaves the pairs as they are, except in
    /// `recurrent`.
    ///
    /// # Reference
    /// Chen et al., "Self-Contrastive Forward-Forward Algorithm", 2024
    /// (<https://arxiv.org/abs/2409.11593>), and its program.
    pub struct Pairs {
        /// Each half of a pair is shifted by up to so many pixels in both directions; the
        /// border is filled with zeros.
        shift: usize = 0, in 0..=64;
        /// Whether each half is standardised before they are added: less its mean, divided
        /// by its standard deviation.
        standardise: bool = false;
    }
}

struct Sampler {
    settings: Pairs,
    /// The images, for shifts.
    size: Option<[usize; 3]>,
}

impl Sampler {
    fn new(settings: Pairs, context: &BuildContext) -> Result<Self> {
        if context.tokenizer.is_some() {
            let problem = "expected numbers to add, found the tokens of a text";
            return Err(Error::unfit("pairs", problem));
        }
        let size = match context.example[..] {
            _ if settings.shift == 0 => None,
            [channels, height, width] => Some([channels, height, width]),
            [height, width] => Some([1, height, width]),
            _ => None,
        };
        if settings.shift > 0 && size.is_none() {
            let problem = format!(
                "expected images to shift, found shape {:?}; set `shift = 0`",
                context.example
            );
            return Err(Error::unfit("pairs", problem));
        }
        Ok(Self { settings, size })
    }

    /// Examples as one half of pairs.
    fn half(&self, examples: &Tensor, purpose: &str, step: &Step) -> Result<Tensor> {
        let Some([channels, height, width]) = self.size else {
            return self.prepared(examples);
        };
        let images = examples.reshape((examples.dim(0)?, channels, height, width))?;
        let shifted = moved(&images, self.settings.shift, &mut step.stream(purpose))?;
        self.prepared(&shifted.reshape(examples.shape())?)
    }

    fn prepared(&self, half: &Tensor) -> Result<Tensor> {
        if !self.settings.standardise {
            return Ok(half.clone());
        }
        let rows = half.flatten_from(1)?;
        let zero = Tensor::zeros(rows.dim(1)?, rows.dtype(), rows.device())?;
        let stats = ChannelStats::of(&rows, true)?;
        // With the slope 1 it only standardises.
        let rows = kernels::standardised_relu(&rows, Some(&stats), &zero, 1.)?;
        Ok(rows.reshape(half.shape())?)
    }

    fn input(&self, pairs: Tensor, views: usize) -> Result<Input> {
        let input = Input::stacked(pairs, views)?;
        Ok(match self.settings.standardise {
            true => input.as_is(),
            false => input,
        })
    }
}

impl NegativeSampler for Sampler {
    fn views(&self, batch: &Batch, _: &Prediction<'_>, step: &Step) -> Result<Views> {
        let first = self.half(batch.examples(), "first halves", step)?;
        let second = match self.size {
            Some(_) => self.half(batch.examples(), "second halves", step)?,
            None => first.clone(),
        };
        let rest = second.narrow(0, 1, batch.size() - 1)?;
        let next = Tensor::cat(&[rest, second.narrow(0, 0, 1)?], 0)?;
        let both = Tensor::cat(&[(&first + second)?, (first + next)?], 0)?;
        Views::new(self.input(both, 2)?, vec![Role::Positive, Role::Negative])
    }

    fn uses_labels(&self) -> bool {
        false
    }

    fn smallest_batch(&self) -> usize {
        2
    }

    fn neutral(&self, batch: &Batch) -> Result<Input> {
        self.input((self.prepared(batch.examples())? * 2.)?, 1)
    }
}

onward_core::register! {
    dyn NegativeSampler, "pairs", "pairs of examples without labels (SCFF 2024, arXiv 2409.11593)",
    |settings: Pairs, context| Ok(Box::new(Sampler::new(settings, context)?))
}

onward_core::settings! {
    /// Mean of the squared positive activities at each pixel, with thresholds for positive
    /// and negative views.
    ///
    /// With `N` channels and `P` pixels, `g[b, p] = (1/N)·Σₙ max(0, a[b, n, p])²`. The
    /// loss of `B` examples is
    /// `mean softplus(θ⁺ − g⁺) + mean softplus(g⁻ − θ⁻) + λ·mean_b ‖g⁺[b]‖`, with the
    /// first means over examples and pixels, and the norm over the pixels of an example.
    /// A dense layer has one pixel, and `‖g⁺[b]‖ = g⁺[b]`. The goodness of an example is
    /// the mean over its pixels.
    ///
    /// | tensor   | shape         |                                   |
    /// |----------|---------------|-----------------------------------|
    /// | activity | `(V·B, N, …)` | `(V·B, N)` of a dense layer       |
    /// | `g`      | `(V·B, P)`    | the loss is taken of it           |
    /// | goodness | `(V·B,)`      | for reports and searches          |
    ///
    /// # Reference
    /// Chen et al., "Self-Contrastive Forward-Forward Algorithm", 2024
    /// (<https://arxiv.org/abs/2409.11593>), and its program.
    pub struct TwoThresholds {
        /// The threshold of positive views, `θ⁺`.
        positive: f64 = 4., in Finite;
        /// The threshold of negative views, `θ⁻`.
        negative: f64 = 6., in Finite;
        /// The weight `λ` of the positive goodness itself; 0 for none.
        lambda: f64 = 0.001, in 0. ..;
    }
}

impl TwoThresholds {
    /// The loss of one view, added to `loss`, and its gradient with respect to the
    /// goodness of the pixels, both `(B, P)`. The offsets, `(B,)`, are added to the
    /// goodness.
    fn of_view(
        &self,
        g: &Tensor,
        offset: Option<Tensor>,
        role: Role,
        loss: &mut Reading,
    ) -> Result<Tensor> {
        let shifted = match offset {
            Some(offset) => g.broadcast_add(&offset.unsqueeze(1)?)?,
            None => g.clone(),
        };
        let (z, sign) = match role {
            Role::Positive => ((self.positive - shifted)?, -1.),
            Role::Negative => ((shifted - self.negative)?, 1.),
        };
        loss.add(&Reading::of(&kernels::softplus(&z)?)?, 1.)?;
        let gradient = (kernels::sigmoid(&z)? * (sign / g.elem_count() as f64))?;
        if role == Role::Negative || self.lambda == 0. {
            return Ok(gradient);
        }
        let norms = g.sqr()?.sum_keepdim(1)?.sqrt()?;
        loss.add(&Reading::of(&norms)?, self.lambda)?;
        let directions = g.broadcast_div(&(norms + 1e-12)?)?;
        let share = self.lambda / g.dim(0)?.max(1) as f64;
        Ok((gradient + (directions * share)?)?)
    }
}

impl GoodnessFn for TwoThresholds {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        Ok(kernels::pixel_energies(activity)?.mean(1)?)
    }

    fn gradient(&self, activity: &Tensor, upstream: &Tensor) -> Result<Tensor> {
        let rows = activity.dim(0)?;
        let pixels: usize = activity.dims()[2..].iter().product();
        let of_pixels = (upstream / pixels as f64)?.reshape((rows, 1))?;
        let of_pixels = of_pixels.broadcast_as((rows, pixels))?;
        kernels::pixel_energies_gradient(activity, &of_pixels)
    }

    fn grade(&self, activity: &Tensor, targets: &Targets, _: &Objective) -> Result<Grade> {
        if !targets.roles().contains(&Role::Negative) {
            let problem = "expected positive and negative views, found positive ones alone; \
                           add --set sampler=pairs, or another sampler with negative views";
            return Err(Error::unfit("two_thresholds", problem));
        }
        let of_pixels = kernels::pixel_energies(activity)?;
        let size = of_pixels.dim(0)? / targets.roles().len().max(1);
        let mut loss = Reading::default();
        let mut upstream = Vec::new();
        for (view, role) in targets.roles().iter().enumerate() {
            let rows = |all: &Tensor| all.narrow(0, view * size, size);
            let offset = targets.offset().map(rows).transpose()?;
            upstream.push(self.of_view(&rows(&of_pixels)?, offset, *role, &mut loss)?);
        }
        let upstream = Tensor::cat(&upstream, 0)?;
        Ok(Grade {
            loss,
            gradient: Some(kernels::pixel_energies_gradient(activity, &upstream)?),
            goodness: Some(of_pixels.mean(1)?),
            upstream: Some(upstream.sum(1)?),
            own: None,
        })
    }
}

onward_core::register! {
    dyn GoodnessFn, "two_thresholds",
    "mean of squares at each pixel, with a threshold for each role (SCFF 2024, arXiv 2409.11593)",
    |settings: TwoThresholds, _context| Ok(Box::new(settings)),
    .idle(|_, all| Ok(beside_own_loss(all, "two_thresholds")))
}

onward_core::preset! {
    dyn Architecture, "progressive", "scff",
    "pairs of images without labels, then a linear probe: two layers of 2000 units (SCFF 2024)",
    r#"
        data = "mnist"
        epochs = 20
        batch = 100
        hidden = [2000, 2000]
        sampler = { name = "pairs", shift = 2, standardise = true }
        layer = [
            { name = "dense", slope = 1.0, passes = "triangle" },
            { name = "dense", slope = 1.0, passes = "triangle", input_norm = "group" },
        ]
        goodness = [
            { name = "two_thresholds", positive = 4.0, negative = 6.0, lambda = 0.0001 },
            { name = "two_thresholds", positive = 1.0, negative = 1.0, lambda = 0.0 },
        ]
        normalise = "mean_square"
        optimiser = "adam"
        layer_lr = [0.003, 0.002]
        weight_decay = 0.0001
        readout_from = 1
        probe_epochs = 50
        head_optimiser = "adam"
        head_lr = 0.001
        head_weight_decay = 0.01
    "#
}

onward_core::preset! {
    dyn Architecture, "progressive", "scff_convolutional",
    "as `scff`, with three convolutions (SCFF 2024)",
    r#"
        data = "cifar-10"
        epochs = 6
        batch = 100
        flip = true
        standardise = true
        hidden = [96, 384, 1536]
        sampler = { name = "pairs", standardise = true }
        goodness = [
            { name = "two_thresholds", positive = 0.0, negative = 1.0, lambda = 0.0012 },
            { name = "two_thresholds", positive = 5.0, negative = 9.0, lambda = 0.0007 },
            { name = "two_thresholds", positive = 6.0, negative = 10.0, lambda = 0.0005 },
        ]
        normalise = "mean_square"
        optimiser = "adam"
        layer_lr = [0.01, 0.002, 0.0002]
        weight_decay = 0.0001
        readout_from = 1
        probe_epochs = 10
        head_optimiser = "adam"
        head_lr = 0.001
        head_weight_decay = 0.0

        [[layer]]
        name = "conv"
        field = 5
        pool = 1
        slope = 1.0
        passes = "triangle"
        passed_pool = "max"

        [[layer]]
        name = "conv"
        pool = 1
        input_norm = "group"
        slope = 1.0
        passes = "triangle"
        passed_pool = "max"

        [[layer]]
        name = "conv"
        pool = 1
        input_norm = "group"
        passed_pool = "mean"
    "#
}
