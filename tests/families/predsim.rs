//! predsim: a loss over pairs of rows of the batch, with two trained maps.

use onward::candle_core::{Tensor, Var, D};
use onward::candle_nn::{ops, Init};
use onward::{BuildContext, Error, GoodnessFn, Grade, Objective, Result, Targets};

use super::{batch, error_on_digits, Subject};

onward::settings! {
    /// Goodness of each class; it learns from predictions and from similarities.
    ///
    /// `g = a·D`, `(B, …)` to `(B, C)`. The loss is `(1 − β)·CE(a·D, y) + β·mean
    /// (S(a·M) − S(Y))²` with the cosine similarities `S(x)`, `(B, B)`, of the rows of
    /// `x` after the mean of each row is subtracted, and the one-hot labels `Y`. `D` is
    /// `(N, C)` and starts at 0, `M` is `(N, N)`.
    ///
    /// # Reference
    /// Nøkland and Eidnes, "Training Neural Networks with Local Error Signals", 2019
    /// (<https://arxiv.org/abs/1901.06656>).
    pub struct Predsim {
        /// The weight `β` of the similarities.
        beta: f64 = 0.7, in 0. ..=1.;
    }
}

struct Goodness {
    beta: f64,
    classes: usize,
    decoder: Var,
    similarity: Var,
}

impl Goodness {
    fn new(settings: &Predsim, context: &BuildContext) -> Result<Self> {
        let (width, classes) = (context.inputs(), context.classes);
        let stdev = 1. / (width as f64).sqrt();
        let random = Init::Randn { mean: 0., stdev };
        Ok(Self {
            beta: settings.beta,
            classes,
            decoder: context
                .vars
                .get("decoder", (width, classes), Init::Const(0.))?,
            similarity: context.vars.get("similarity", (width, width), random)?,
        })
    }
}

impl GoodnessFn for Goodness {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        Ok(activity.flatten_from(1)?.matmul(&self.decoder)?)
    }

    fn classes(&self) -> Option<usize> {
        Some(self.classes)
    }

    fn uses_labels(&self, _: &Objective) -> bool {
        true
    }

    fn grade(&self, activity: &Tensor, targets: &Targets, _: &Objective) -> Result<Grade> {
        let labels = targets.labels()?;
        if targets.roles().len() != 1 || labels.len() != activity.dim(0)? {
            let problem = "expected one positive view with a label for each example";
            return Err(Error::unfit("predsim", problem));
        }
        let labels = Tensor::new(labels, activity.device())?;
        let one_hot = onward::candle_nn::encoding::one_hot(labels, self.classes, 1f32, 0.)?;
        let one_hot = one_hot.to_dtype(activity.dtype())?;
        let grade = Grade::by_autograd(activity, |activity| {
            let log = ops::log_softmax(&self.goodness(activity)?, D::Minus1)?;
            let predicted = (log * &one_hot)?.sum(1)?.mean_all()?.neg()?;
            let mapped = activity.flatten_from(1)?.matmul(&self.similarity)?;
            let difference = (similarity(&mapped)? - similarity(&one_hot)?)?;
            let similar = difference.sqr()?.mean_all()?;
            Ok(((predicted * (1. - self.beta))? + (similar * self.beta)?)?)
        })?;
        Ok(Grade {
            goodness: Some(self.goodness(activity)?),
            ..grade
        })
    }
}

/// The cosine similarity of each pair of rows, `(B, B)`.
fn similarity(rows: &Tensor) -> Result<Tensor> {
    let rows = rows.broadcast_sub(&rows.mean_keepdim(1)?)?;
    let length = (rows.sqr()?.sum_keepdim(1)? + 1e-8)?.sqrt()?;
    let rows = rows.broadcast_div(&length)?;
    Ok(rows.matmul(&rows.t()?)?)
}

onward::register! {
    dyn GoodnessFn, "predsim", "predictions and similarities of pairs of rows (Nøkland 2019, arXiv 1901.06656)",
    |settings: Predsim, context| Ok(Box::new(Goodness::new(&settings, context)?))
}

// x, labels, beta = numbers(1, 4, 3), [0, 1, 1, 2], .7
// W, b, D, C = numbers(2, 3, 5), np.zeros(5), numbers(3, 5, 3), numbers(4, 5, 5)
// Y = np.eye(3)[labels]
// def similarity(v):
//     v = v - v.mean(1, keepdims=True)
//     v = v / np.sqrt((v ** 2).sum(1, keepdims=True) + 1e-8)
//     return v @ v.T
// def loss():
//     h = layer(x, W, b)
//     z = h @ D
//     log = z - np.log(np.exp(z).sum(1, keepdims=True))
//     similar = ((similarity(h @ C) - similarity(Y)) ** 2).mean()
//     return (1 - beta) * -log[range(4), labels].mean() + beta * similar
// for step in range(3):
//     changes = [gradient(loss, p) for p in (W, b, D, C)]
//     for p, d in zip((W, b, D, C), changes): p -= .5 * d
// print(W, b, D, C)
const WEIGHT: [f64; 15] = [
    0.673523351,
    -0.114506707,
    -0.691284341,
    0.642101334,
    0.209369398,
    -0.345191276,
    -0.225617259,
    0.858179375,
    -0.052154714,
    -0.733942826,
    -0.168327997,
    0.342148211,
    0.010218696,
    -0.679647155,
    0.452820263,
];
const BIAS: [f64; 5] = [
    0.549634852,
    -0.310706441,
    -0.066804806,
    0.108979986,
    0.409924283,
];
const DECODER: [f64; 15] = [
    0.085209307,
    -0.510269619,
    0.053933289,
    0.475850560,
    -0.179056057,
    -0.432815249,
    0.246911526,
    0.425813011,
    -0.404423144,
    -0.227892042,
    0.447080364,
    0.119656334,
    -0.504235964,
    -0.024488495,
    0.516574543,
];
const SIMILARITY: [f64; 25] = [
    -0.472049890,
    -0.082758382,
    0.527187306,
    -0.019280492,
    -0.488407444,
    0.033188142,
    0.392211784,
    -0.164078773,
    -0.379752464,
    0.232114829,
    0.414424614,
    -0.281553610,
    -0.347567640,
    0.365421673,
    0.247706207,
    -0.449815563,
    -0.157775698,
    0.484598216,
    0.027025666,
    -0.497436840,
    0.037393445,
    0.690541754,
    -0.176968989,
    -0.606569334,
    0.371644689,
];

const SETTINGS: &str = r#"
    goodness = "predsim"
    hidden = [5]
    normalise = "none"
    head = false
"#;

#[test]
fn three_steps_match_an_independent_program() -> Result<()> {
    let mut subject = Subject::new("progressive", "plain", SETTINGS)?;
    subject.set("blocks.0.layer.weight", &super::numbers(2., (3, 5))?);
    subject.set("blocks.0.goodness.decoder", &super::numbers(3., (5, 3))?);
    subject.set("blocks.0.goodness.similarity", &super::numbers(4., (5, 5))?);
    subject.learn(3, |_| batch(1.))?;
    subject.assert_close("blocks.0.layer.weight", &WEIGHT);
    subject.assert_close("blocks.0.layer.bias", &BIAS);
    subject.assert_close("blocks.0.goodness.decoder", &DECODER);
    subject.assert_close("blocks.0.goodness.similarity", &SIMILARITY);
    Ok(())
}

#[test]
fn it_trains() -> Result<()> {
    let settings = [
        ("sampler", r#""plain""#),
        ("goodness", r#""predsim""#),
        ("hidden", "[50, 50]"),
        ("head", "false"),
        ("lr", "0.5"),
    ];
    let error = error_on_digits(&settings, "progressive")?;
    assert!(error < 0.4, "{error}");
    Ok(())
}
