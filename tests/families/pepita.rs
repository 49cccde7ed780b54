//! PEPITA: a second forward pass, on the input plus the projected error. The output layer
//! learns from this pass too.

use onward::candle_core::{Tensor, Var};
use onward::candle_nn::Init;
use onward::kernels::log_softmax;
use onward::optim::{Gradient, Optimiser};
use onward::{
    Batch, BuildContext, Error, GoodnessFn, Grade, Input, Lesson, Linear, LocalLayer,
    NegativeSampler, Objective, Prediction, Result, Role, Step, Targets, Views,
};

use super::{batch, error_on_digits, numbers, Subject};

onward::settings! {
    /// Two views: the example, and the example plus the projected error of the output.
    ///
    /// `x′ = x + e·F` with the error `e = p − y` of the network's prediction `p` and the
    /// one-hot label `y`. `F`, `(C, D)`, is random and fixed. `(B, …)` to `(2·B, D)`.
    ///
    /// # Reference
    /// Dellaferrera and Kreiman, "Error-driven Input Modulation", 2022
    /// (<https://arxiv.org/abs/2201.11665>).
    pub struct Modulated {}
}

struct Modulation {
    projection: Var,
}

impl Modulation {
    fn new(context: &BuildContext) -> Result<Self> {
        let inputs = context.example.iter().product::<usize>();
        let most = 0.05 * (6. / inputs as f64).sqrt();
        let init = Init::Uniform {
            lo: -most,
            up: most,
        };
        let projection = context
            .vars
            .buffer("projection", (context.classes, inputs), init)?;
        Ok(Self { projection })
    }
}

impl NegativeSampler for Modulation {
    fn views(&self, batch: &Batch, prediction: &Prediction<'_>, _: &Step) -> Result<Views> {
        let rows = batch.rows();
        let error = error(prediction.log_probabilities()?, batch.labels()?)?;
        let modulated = (rows + error.to_dtype(rows.dtype())?.matmul(&self.projection)?)?;
        let both = Input::stacked(Tensor::cat(&[rows, &modulated.detach()], 0)?, 2)?;
        Views::new(both, vec![Role::Positive, Role::Negative])
    }

    fn neutral(&self, batch: &Batch) -> Result<Input> {
        Input::of(batch.rows().clone())
    }
}

/// `p − y` from log-probabilities, `(B, C)`.
fn error(log: &Tensor, labels: &[u32]) -> Result<Tensor> {
    let labels = Tensor::new(labels, log.device())?;
    let one_hot = onward::candle_nn::encoding::one_hot(labels, log.dim(1)?, 1f32, 0.)?;
    Ok((log.exp()? - one_hot.to_dtype(log.dtype())?)?)
}

onward::register! {
    dyn NegativeSampler, "modulated", "the example plus its projected error (PEPITA 2022, arXiv 2201.11665)",
    |_settings: Modulated, context| Ok(Box::new(Modulation::new(context)?))
}

onward::settings! {
    /// Rectified linear units that learn from the difference of two passes.
    ///
    /// `a = max(0, x·W)`, `(V·B, …)` to `(V·B, N)`; `∂W = x′ᵀ·(a − a′) / B` with input
    /// `x′` and activity `a′` of the second pass.
    ///
    /// # Reference
    /// Dellaferrera and Kreiman, "Error-driven Input Modulation", 2022
    /// (<https://arxiv.org/abs/2201.11665>).
    pub struct TwoPasses {}
}

struct Hidden {
    name: String,
    weight: Var,
}

impl Hidden {
    fn new(context: &BuildContext) -> Result<Self> {
        let (inputs, units) = (context.inputs(), context.units_or(None)?);
        let init = Init::Randn {
            mean: 0.,
            stdev: (2. / inputs as f64).sqrt(),
        };
        let weight = context.vars.get("weight", (inputs, units), init)?;
        Ok(Self {
            name: context.vars.path("weight"),
            weight,
        })
    }
}

impl LocalLayer for Hidden {
    fn forward(&self, input: &Input, _: &Step) -> Result<Tensor> {
        Ok(input
            .join()?
            .flatten_from(1)?
            .matmul(&self.weight)?
            .relu()?)
    }

    fn learn(&mut self, lesson: &Lesson<'_>, optimiser: &mut Optimiser, step: &Step) -> Result<()> {
        let size = lesson.input.batch();
        if lesson.targets.roles().len() < 2 {
            let problem = "expected two passes, the second with the role Negative, found one";
            return Err(Error::unfit("two_passes", problem));
        }
        let second = lesson.activity.dim(0)? - size;
        let activity = lesson.activity.detach();
        let difference = (activity.narrow(0, 0, size)? - activity.narrow(0, second, size)?)?;
        let input = lesson
            .input
            .join()?
            .flatten_from(1)?
            .narrow(0, second, size)?;
        let gradient = (input.t()?.matmul(&difference)? / size as f64)?;
        optimiser.update(&self.name, &self.weight, Gradient::Whole(&gradient), step)
    }
}

onward::register! {
    dyn LocalLayer, "two_passes", "learns from the difference of two passes (PEPITA 2022, arXiv 2201.11665)",
    |_settings: TwoPasses, context| Ok(Box::new(Hidden::new(context)?))
}

onward::settings! {
    /// Output layer: a linear map to the classes that learns from the second pass.
    ///
    /// `g = a·M`, `(B, …)` to `(B, C)`; the loss is the cross-entropy of the second
    /// pass, `∂M = a′ᵀ·(p′ − y) / B`.
    ///
    /// # Reference
    /// Dellaferrera and Kreiman, "Error-driven Input Modulation", 2022
    /// (<https://arxiv.org/abs/2201.11665>).
    pub struct Output {}
}

struct OutputLayer {
    linear: Linear,
    classes: usize,
}

impl OutputLayer {
    fn new(context: &BuildContext) -> Result<Self> {
        let (inputs, classes) = (context.inputs(), context.classes);
        let init = Init::Randn {
            mean: 0.,
            stdev: (2. / inputs as f64).sqrt(),
        };
        let linear = Linear::new(&context.vars, inputs, classes, init, false)?;
        Ok(Self { linear, classes })
    }
}

/// The rows of the last view.
fn last(activity: &Tensor, views: usize) -> Result<Tensor> {
    let size = activity.dim(0)? / views;
    Ok(activity
        .flatten_from(1)?
        .narrow(0, (views - 1) * size, size)?
        .contiguous()?)
}

impl GoodnessFn for OutputLayer {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        self.linear
            .forward(&Input::of(activity.flatten_from(1)?)?, false)
    }

    fn classes(&self) -> Option<usize> {
        Some(self.classes)
    }

    fn gradient(&self, activity: &Tensor, upstream: &Tensor) -> Result<Tensor> {
        Ok(self
            .linear
            .joined_gradient(upstream)?
            .reshape(activity.shape())?)
    }

    fn uses_labels(&self, _: &Objective) -> bool {
        true
    }

    fn grade(&self, activity: &Tensor, targets: &Targets, objective: &Objective) -> Result<Grade> {
        let second = last(activity, targets.roles().len())?;
        let only = Targets::new(vec![Role::Positive])?;
        let only = only.with_labels(Some(targets.labels()?.to_vec()));
        let (loss, upstream) = objective.grade(&self.goodness(&second)?, 0., &only)?;
        let of_second = self.linear.joined_gradient(&upstream)?;
        let first = activity.dim(0)? - of_second.dim(0)?;
        let gradient = of_second
            .pad_with_zeros(0, first, 0)?
            .reshape(activity.shape())?;
        Ok(Grade {
            loss,
            gradient: Some(gradient),
            goodness: Some(self.goodness(activity)?),
            upstream: Some(upstream),
            own: None,
        })
    }

    fn learn(
        &mut self,
        activity: &Tensor,
        grade: &Grade,
        targets: &Targets,
        optimiser: &mut Optimiser,
        step: &Step,
    ) -> Result<()> {
        let second = Input::of(last(activity, targets.roles().len())?)?;
        match &grade.upstream {
            Some(upstream) => self.linear.update(&second, upstream, optimiser, step),
            None => Ok(()),
        }
    }
}

onward::register! {
    dyn GoodnessFn, "output", "an output layer that learns from the second pass (PEPITA 2022, arXiv 2201.11665)",
    |_settings: Output, context| Ok(Box::new(OutputLayer::new(context)?))
}

// x, labels = numbers(1, 4, 3), [0, 1, 1, 2]
// W, M, F = numbers(2, 3, 5), numbers(3, 5, 3), numbers(4, 3, 3)
// Y = np.eye(3)[labels]
// def softmax(z): e = np.exp(z); return e / e.sum(1, keepdims=True)
// for step in range(3):
//     h = layer(x, W, 0); e = softmax(h @ M) - Y
//     x2 = x + e @ F; h2 = layer(x2, W, 0); e2 = softmax(h2 @ M) - Y
//     W, M = W - .5 * x2.T @ (h - h2) / 4, M - .5 * h2.T @ e2 / 4
// print(W, M)
const WEIGHT: [f64; 15] = [
    0.541931169,
    -0.379265631,
    -0.434109932,
    0.511882668,
    0.259542366,
    -0.414425282,
    -0.259250704,
    0.533167908,
    0.082209169,
    -0.526520419,
    -0.018894974,
    0.615574104,
    -0.163203837,
    -0.584052582,
    0.349196824,
];
const OUTPUT: [f64; 15] = [
    0.155319620,
    -0.544144885,
    0.017698243,
    0.312393841,
    -0.172715784,
    -0.275698803,
    0.190004646,
    0.538980775,
    -0.460684028,
    -0.032536466,
    0.337280351,
    0.034100772,
    -0.546639113,
    -0.056215592,
    0.590704788,
];

const SETTINGS: &str = r#"
    layer = "two_passes"
    goodness = "output"
    loss = "cross_entropy"
    hidden = [5]
    normalise = "none"
    head = false
"#;

#[test]
fn three_steps_match_an_independent_program() -> Result<()> {
    let mut subject = Subject::new("progressive", "modulated", SETTINGS)?;
    subject.set("blocks.0.layer.weight", &numbers(2., (3, 5))?);
    subject.set("blocks.0.goodness.weight", &numbers(3., (5, 3))?);
    subject.set("sampler.projection", &numbers(4., (3, 3))?);
    subject.learn(3, |_| batch(1.))?;
    subject.assert_close("blocks.0.layer.weight", &WEIGHT);
    subject.assert_close("blocks.0.goodness.weight", &OUTPUT);
    Ok(())
}

#[test]
fn the_error_is_prediction_minus_label() -> Result<()> {
    let log = log_softmax(&Tensor::new(
        &[[0f64, 0.]],
        &onward::candle_core::Device::Cpu,
    )?)?;
    assert_eq!(error(&log, &[1])?.to_vec2::<f64>()?, [[0.5, -0.5]]);
    Ok(())
}

#[test]
fn it_trains() -> Result<()> {
    let settings = [
        ("sampler", r#""modulated""#),
        ("layer", r#""two_passes""#),
        ("goodness", r#""output""#),
        ("loss", r#""cross_entropy""#),
        ("normalise", r#""none""#),
        ("hidden", "[200]"),
        ("head", "false"),
        ("lr", "1.0"),
    ];
    let error = error_on_digits(&settings, "progressive")?;
    assert!(error < 0.4, "{error}");
    Ok(())
}
