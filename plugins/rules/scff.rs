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
    /// Mean of the squared activities, with thresholds for positive and negative views.
    ///
    /// `g[b] = (1/N)·Σᵢ a[b, i]²`, and the loss is
    /// `mean softplus(θ⁺ − g⁺) + mean softplus(g⁻ − θ⁻) + λ·‖g⁺‖`. `(B, …)` to `(B,)`.
    ///
    /// # Reference
    /// Chen et al., "Self-Contrastive Forward-Forward Algorithm", 2024
    /// (<https://arxiv.org/abs/2409.11593>).
    pub struct TwoThresholds {
        /// The threshold of positive views, `θ⁺`.
        positive: f64 = 4., in Finite;
        /// The threshold of negative views, `θ⁻`.
        negative: f64 = 6., in Finite;
        /// The weight `λ` of the norm of the positive goodness; 0 for none.
        lambda: f64 = 0.001, in 0. ..;
    }
}

impl GoodnessFn for TwoThresholds {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        Ok((kernels::sum_squares(activity)? / units(activity)?)?)
    }

    fn gradient(&self, activity: &Tensor, upstream: &Tensor) -> Result<Tensor> {
        kernels::scale_rows_by(activity, upstream, 2. / units(activity)?)
    }

    fn grade(&self, activity: &Tensor, targets: &Targets, _: &Objective) -> Result<Grade> {
        if !targets.roles().contains(&Role::Negative) {
            let problem = "expected positive and negative views, found positive ones alone; \
                           add --set sampler=pairs, or another sampler with negative views";
            return Err(Error::unfit("two_thresholds", problem));
        }
        let goodness = self.goodness(activity)?;
        let size = goodness.dim(0)? / targets.roles().len().max(1);
        let mut loss = Reading::default();
        let mut upstream = Vec::new();
        for (view, role) in targets.roles().iter().enumerate() {
            let g = goodness.narrow(0, view * size, size)?;
            let with_offset = match targets.offset() {
                Some(offset) => (&g + offset.narrow(0, view * size, size)?)?,
                None => g.clone(),
            };
            let (z, sign) = match role {
                Role::Positive => ((self.positive - with_offset)?, -1.),
                Role::Negative => ((with_offset - self.negative)?, 1.),
            };
            loss.add(&Reading::of(&kernels::softplus(&z)?)?, 1.)?;
            let mut gradient = (kernels::sigmoid(&z)? * (sign / size as f64))?;
            if *role == Role::Positive && self.lambda > 0. {
                let norm = g.sqr()?.sum_all()?.sqrt()?;
                loss.add(&Reading::of(&norm)?, self.lambda)?;
                let direction = g.broadcast_div(&(norm + 1e-12)?)?;
                gradient = (gradient + (direction * self.lambda)?)?;
            }
            upstream.push(gradient);
        }
        let upstream = Tensor::cat(&upstream, 0)?;
        Ok(Grade {
            loss,
            gradient: Some(self.gradient(activity, &upstream)?),
            goodness: Some(goodness),
            upstream: Some(upstream),
            own: None,
        })
    }
}

fn units(activity: &Tensor) -> Result<f64> {
    Ok((activity.elem_count() / activity.dim(0)?.max(1)).max(1) as f64)
}

onward_core::register! {
    dyn GoodnessFn, "two_thresholds",
    "mean of squares, with a threshold for each role (SCFF 2024, arXiv 2409.11593)",
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
