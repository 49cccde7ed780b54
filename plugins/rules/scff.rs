//! SCFF: pairs of examples without labels, and a threshold for each role.

use onward_core::candle_core::Tensor;
use onward_core::contract::goodness::beside_own_loss;
use onward_core::settings::Finite;
use onward_core::{
    kernels, Architecture, Batch, Error, GoodnessFn, Grade, Input, NegativeSampler, Objective,
    Prediction, Reading, Result, Role, Step, Targets, Views,
};

onward_core::settings! {
    /// Pairs of examples without labels: an example with itself, and with another one.
    ///
    /// Both halves of a pair have the same weights, so a layer sees their sum:
    /// `x⁺ = x + x`, `x⁻ = x + x′` with the next example `x′` of the batch. `(B, …)` to
    /// `(2·B, …)`.
    ///
    /// # Reference
    /// Chen et al., "Self-Contrastive Forward-Forward Algorithm", 2024
    /// (<https://arxiv.org/abs/2409.11593>).
    pub struct Pairs {}
}

impl NegativeSampler for Pairs {
    fn views(&self, batch: &Batch, _: &Prediction<'_>, _: &Step) -> Result<Views> {
        let examples = batch.examples();
        let rest = examples.narrow(0, 1, batch.size() - 1)?;
        let next = Tensor::cat(&[rest, examples.narrow(0, 0, 1)?], 0)?;
        let both = Tensor::cat(&[(examples * 2.)?, (examples + next)?], 0)?;
        Views::new(
            Input::stacked(both, 2)?,
            vec![Role::Positive, Role::Negative],
        )
    }

    fn uses_labels(&self) -> bool {
        false
    }

    fn smallest_batch(&self) -> usize {
        2
    }

    fn neutral(&self, batch: &Batch) -> Result<Input> {
        Input::of((batch.examples() * 2.)?)
    }
}

onward_core::register! {
    dyn NegativeSampler, "pairs", "pairs of examples without labels (SCFF 2024, arXiv 2409.11593)",
    |settings: Pairs, _context| Ok(Box::new(settings))
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
        standardise = true
        hidden = [2000, 2000]
        sampler = "pairs"
        layer = "dense"
        goodness = [
            { name = "two_thresholds", positive = 4.0, negative = 6.0 },
            { name = "two_thresholds", positive = 1.0, negative = 1.0 },
        ]
        normalise = "mean_square"
        optimiser = "adam"
        lr = 0.0005
        weight_decay = 0.0
        readout_from = 1
        probe_epochs = 20
    "#
}
