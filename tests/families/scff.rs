//! SCFF: pairs of images, and separate thresholds for positive and negative views.

use onward::candle_core::Tensor;
use onward::settings::{Finite, Positive};
use onward::{
    Batch, GoodnessFn, Grade, Input, NegativeSampler, Objective, Prediction, Result, Role, Step,
    Targets, Views,
};

use super::{batch, error_on_digits, Subject};

onward::settings! {
    /// Pairs of images without labels: an image with itself, and with the next image.
    ///
    /// Both halves of a pair share the same weights, so a layer sees their sum:
    /// `x⁺ = x + x`, `x⁻ = x + x′` with the next image `x′` of the batch. `(B, …)` to
    /// `(2·B, …)`.
    ///
    /// # Reference
    /// Chen et al., "Self-Contrastive Forward-Forward Algorithm", 2024
    /// (<https://arxiv.org/abs/2409.11593>).
    pub struct Pairs {}
}

impl NegativeSampler for Pairs {
    fn views(&self, batch: &Batch, _: &Prediction<'_>, _: &Step) -> Result<Views> {
        let images = batch.examples();
        let rest = images.narrow(0, 1, batch.size() - 1)?;
        let next = Tensor::cat(&[rest, images.narrow(0, 0, 1)?], 0)?;
        let both = Tensor::cat(&[(images * 2.)?, (images + next)?], 0)?;
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

onward::register! {
    dyn NegativeSampler, "pairs", "pairs of images without labels (SCFF 2024, arXiv 2409.11593)",
    |settings: Pairs, _context| Ok(Box::new(settings))
}

onward::settings! {
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
        positive: f64 = 0.1, in Finite;
        /// The threshold of negative views, `θ⁻`.
        negative: f64 = 0.3, in Finite;
        /// The weight `λ` of the norm of the positive goodness.
        lambda: f64 = 0.01, in Positive;
    }
}

impl GoodnessFn for TwoThresholds {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        Ok(activity.flatten_from(1)?.sqr()?.mean(1)?)
    }

    fn grade(&self, activity: &Tensor, targets: &Targets, _: &Objective) -> Result<Grade> {
        let rows = activity.dim(0)?;
        let positive = rows / targets.roles().len() * targets.positive();
        let grade = Grade::by_autograd(activity, |activity| {
            let goodness = self.goodness(activity)?;
            let high = goodness.narrow(0, 0, positive)?;
            let low = goodness.narrow(0, positive, rows - positive)?;
            let loss = softplus(&(self.positive - &high)?)?.mean_all()?;
            let loss = (loss + softplus(&(low - self.negative)?)?.mean_all()?)?;
            Ok((loss + (high.sqr()?.sum_all()?.sqrt()? * self.lambda)?)?)
        })?;
        Ok(Grade {
            goodness: Some(self.goodness(activity)?),
            ..grade
        })
    }
}

fn softplus(z: &Tensor) -> Result<Tensor> {
    Ok((z.exp()? + 1.)?.log()?)
}

onward::register! {
    dyn GoodnessFn, "two_thresholds", "mean of squares, a threshold for each role (SCFF 2024, arXiv 2409.11593)",
    |settings: TwoThresholds, _context| Ok(Box::new(settings))
}

// x = numbers(1, 4, 3)
// pairs = [2 * x, x + np.roll(x, -1, 0)]          # (x, x) and (x, the next example)
// W, b = numbers(2, 3, 5), np.zeros(5)
// g = lambda v: (layer(v, W, b) ** 2).mean(1)
// def loss():
//     p, n = g(pairs[0]), g(pairs[1])
//     return softplus(.1 - p).mean() + softplus(n - .3).mean() + .01 * np.sqrt((p ** 2).sum())
// for step in range(3):
//     dW, db = gradient(loss, W), gradient(loss, b)
//     W -= .5 * dW; b -= .5 * db
// print(W, b)
const WEIGHT: [f64; 15] = [
    0.455689978,
    -0.293272766,
    -0.402789532,
    0.400449107,
    0.281316305,
    -0.441811131,
    -0.200480634,
    0.504575187,
    0.061606388,
    -0.521005204,
    0.074403248,
    0.514436839,
    -0.187156208,
    -0.467309911,
    0.326001675,
];
const BIAS: [f64; 5] = [
    0.010102358,
    0.032911314,
    0.019278997,
    0.024246183,
    0.015995586,
];

const SETTINGS: &str = r#"
    goodness = "two_thresholds"
    hidden = [5]
    normalise = "none"
"#;

#[test]
fn three_steps_match_an_independent_program() -> Result<()> {
    let mut subject = Subject::new("progressive", "pairs", SETTINGS)?;
    subject.set("blocks.0.layer.weight", &super::numbers(2., (3, 5))?);
    subject.learn(3, |_| batch(1.))?;
    subject.assert_close("blocks.0.layer.weight", &WEIGHT);
    subject.assert_close("blocks.0.layer.bias", &BIAS);
    Ok(())
}

#[test]
fn it_trains_without_labels() -> Result<()> {
    let settings = [
        ("sampler", r#""pairs""#),
        ("goodness", r#""two_thresholds""#),
        ("hidden", "[100]"),
        ("lr", "0.1"),
    ];
    let error = error_on_digits(&settings, "progressive")?;
    assert!(error < 0.5, "{error}");
    Ok(())
}
