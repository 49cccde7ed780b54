//! Targets at every position of a sequence.

use std::sync::Arc;

use onward::candle_core::{Device, Tensor, Var};
use onward::candle_nn::Init;
use onward::data::{Content, DataSet, ExampleSpec, Framing};
use onward::flow::examples::{Augment, Examples};
use onward::flow::random::{below, stream, unit};
use onward::optim::Optimiser;
use onward::{
    Batch, BuildContext, Error, GoodnessFn, Grade, Input, Linear, LocalLayer, Result, Run, Step,
    Targets,
};

use super::{assert_close, numbers, Subject};

onward::settings! {
    /// The same linear map and ReLU at every position of a sequence.
    ///
    /// `a[b, p] = max(0, x[b, p]·W + b)`, with `p` over all dimensions between the
    /// first and the last: `(V·B, …, D)` to `(V·B, …, N)`.
    ///
    /// # Reference
    /// Vaswani et al., "Attention Is All You Need", 2017
    /// (<https://arxiv.org/abs/1706.03762>): the first half of its position-wise network.
    pub struct PositionWise {
        /// The number of units. Default: the width set by the architecture.
        units: Option<usize> = None, in 1..;
    }
}

struct Layer {
    weight: Var,
    bias: Var,
}

impl Layer {
    fn new(settings: &PositionWise, context: &BuildContext) -> Result<Self> {
        let inputs = context.input.last().copied().unwrap_or(1);
        let units = context.units_or(settings.units)?;
        let init = Init::Randn {
            mean: 0.,
            stdev: 1. / (inputs as f64).sqrt(),
        };
        Ok(Self {
            weight: context.vars.get("weight", (inputs, units), init)?,
            bias: context.vars.get("bias", units, Init::Const(0.))?,
        })
    }
}

impl LocalLayer for Layer {
    fn forward(&self, input: &Input, _: &Step) -> Result<Tensor> {
        let mapped = input.join()?.broadcast_matmul(&self.weight)?;
        Ok(mapped.broadcast_add(&self.bias)?.relu()?)
    }
}

onward::register! {
    dyn LocalLayer, "position_wise", "the same map at every position (Vaswani 2017, arXiv 1706.03762)",
    |settings: PositionWise, context| Ok(Box::new(Layer::new(&settings, context)?))
}

onward::settings! {
    /// Goodness of each class at every position, by one linear map.
    ///
    /// `g[b, p] = a[b, p]·M`, `(B, …, N)` to `(B, P, C)`. The map learns with the layer
    /// from the cross-entropy.
    ///
    /// # Reference
    /// Vaswani et al., "Attention Is All You Need", 2017
    /// (<https://arxiv.org/abs/1706.03762>): the output map.
    pub struct AtPositions {}
}

struct Goodness {
    linear: Linear,
    classes: usize,
}

impl Goodness {
    fn new(context: &BuildContext) -> Result<Self> {
        let (inputs, classes) = (context.input.last().copied().unwrap_or(1), context.classes);
        let positions = context.inputs() / inputs;
        if positions == 1 || positions != context.positions {
            let labels = context.positions;
            let problem = format!("expected a label at each position, found {positions} positions and {labels} labels");
            return Err(Error::unfit("at_positions", problem));
        }
        let init = Init::Randn {
            mean: 0.,
            stdev: 0.1,
        };
        let linear = Linear::new(&context.vars, inputs, classes, init, false)?;
        Ok(Self { linear, classes })
    }

    /// A row for each position of each example.
    fn rows(activity: &Tensor) -> Result<Input> {
        Input::of(activity.flatten_to(activity.rank() - 2)?)
    }
}

impl GoodnessFn for Goodness {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        let goodness = self.linear.forward(&Self::rows(activity)?, false)?;
        Ok(goodness.reshape((activity.dim(0)?, (), self.classes))?)
    }

    fn classes(&self) -> Option<usize> {
        Some(self.classes)
    }

    fn gradient(&self, activity: &Tensor, upstream: &Tensor) -> Result<Tensor> {
        let gradient = self.linear.joined_gradient(&upstream.flatten_to(1)?)?;
        Ok(gradient.reshape(activity.shape())?)
    }

    fn learn(
        &mut self,
        activity: &Tensor,
        grade: &Grade,
        _: &Targets,
        optimiser: &mut Optimiser,
        step: &Step,
    ) -> Result<()> {
        match &grade.upstream {
            Some(upstream) => {
                let upstream = upstream.flatten_to(1)?;
                self.linear
                    .update(&Self::rows(activity)?, &upstream, optimiser, step)
            }
            None => Ok(()),
        }
    }
}

onward::register! {
    dyn GoodnessFn, "at_positions", "a goodness for each class at every position (Vaswani 2017, arXiv 1706.03762)",
    |_settings: AtPositions, context| Ok(Box::new(Goodness::new(context)?))
}

onward::settings! {
    /// Noisy sequences of five positions with four numbers each.
    ///
    /// One number of each position is larger; its index is the class of the position.
    pub struct Sequences {}
}

struct Part(&'static str, usize);

impl Examples for Part {
    fn len(&self) -> usize {
        self.1
    }

    fn batch(&self, indices: &[usize], _: Option<&Augment<'_>>) -> Result<Batch> {
        let (mut values, mut labels) = (Vec::new(), Vec::new());
        for &index in indices {
            let mut rng = stream(0, self.0, index as u64);
            for _ in 0..5 {
                let class = below(&mut rng, 4);
                let loud = |number: usize| if number == class { 0.8f32 } else { 0. };
                values.extend((0..4).map(|number| loud(number) + unit(&mut rng) as f32));
                labels.push(class as u32);
            }
        }
        let shape = (indices.len(), 1, 5, 4);
        Batch::new(Tensor::from_vec(values, shape, &Device::Cpu)?, labels)
    }
}

fn sequences() -> DataSet {
    let classes = ["a", "b", "c", "d"].map(String::from).to_vec();
    let spec = ExampleSpec::new(&[1, 5, 4], classes, Content::Picture(Framing::Whole));
    DataSet {
        spec: ExampleSpec {
            positions: 5,
            ..spec
        },
        train: Arc::new(Part("train", 500)),
        validation: Arc::new(Part("validation", 50)),
        test: Arc::new(Part("test", 100)),
        text: None,
    }
}

onward::register! {
    DataSet, "sequences", "a class at every position (for these tests, 2026)",
    |_settings: Sequences, _context| Ok(Box::new(sequences()))
}

// x = numbers(1, 4, 2, 3)                   # 4 sequences of 2 positions of 3 numbers
// labels = np.array([[0, 1], [1, 2], [2, 0], [1, 1]])
// W, b, M = numbers(2, 3, 5), np.zeros(5), numbers(3, 5, 3)
// def logits(): return layer(x, W, b) @ M
// def loss():
//     z = logits()
//     log = z - np.log(np.exp(z).sum(2, keepdims=True))
//     return -np.take_along_axis(log, labels[..., None], 2).mean()
// for step in range(3):
//     changes = [gradient(loss, p) for p in (W, b, M)]
//     for p, d in zip((W, b, M), changes): p -= .5 * d
// print(W, b, M, logits())
const WEIGHT: [f64; 15] = [
    0.490515374,
    -0.214825340,
    -0.411953533,
    0.302727768,
    0.256422565,
    -0.456212652,
    -0.167964292,
    0.566353995,
    0.093859793,
    -0.576133114,
    0.043288966,
    0.427610309,
    -0.193911926,
    -0.377899920,
    0.365101271,
];
const BIAS: [f64; 5] = [
    0.144438400,
    -0.137827362,
    0.242145654,
    -0.014808801,
    0.117234883,
];
const MAP: [f64; 15] = [
    0.088834214,
    -0.549222921,
    0.089261685,
    0.438888184,
    -0.148697501,
    -0.426211429,
    0.225445306,
    0.505223825,
    -0.462367739,
    -0.184393469,
    0.419492684,
    0.103745441,
    -0.526226010,
    -0.050546326,
    0.564622420,
];
const LOGITS: [f64; 24] = [
    0.026666280,
    0.145766174,
    -0.077252239,
    0.124995776,
    0.295670985,
    -0.261481174,
    0.127027663,
    0.204684278,
    -0.229604624,
    -0.112589600,
    -0.112894307,
    0.147567752,
    -0.177588205,
    -0.244783336,
    0.270421630,
    -0.014203418,
    0.024482739,
    0.013588405,
    0.090655368,
    0.318446558,
    -0.223919732,
    0.138770807,
    0.262725776,
    -0.264406716,
];

const SETTINGS: &str = r#"
    layer = "position_wise"
    goodness = "at_positions"
    loss = "cross_entropy"
    hidden = [5]
    normalise = "none"
    head = false
"#;

#[test]
fn three_steps_match_an_independent_program() -> Result<()> {
    let mut subject = Subject::on(&[2, 3], 2, "progressive", "plain", SETTINGS)?;
    subject.set("blocks.0.layer.weight", &numbers(2., (3, 5))?);
    subject.set("blocks.0.goodness.weight", &numbers(3., (5, 3))?);
    let labels = vec![0, 1, 1, 2, 2, 0, 1, 1];
    let batch = Batch::new(numbers(1., (4, 2, 3))?, labels)?;
    subject.learn(3, |_| Ok(batch.clone()))?;
    subject.assert_close("blocks.0.layer.weight", &WEIGHT);
    subject.assert_close("blocks.0.layer.bias", &BIAS);
    subject.assert_close("blocks.0.goodness.weight", &MAP);
    let readout = subject.net.net().readouts[0];
    let step = Step::evaluation(1);
    let scores = subject
        .net
        .scores(&batch.hidden(), &*subject.sampler, &readout, &step)?;
    assert_eq!(scores.dims(), [4, 2, 3]);
    assert_close("logits", &scores, &LOGITS);
    Ok(())
}

#[test]
fn every_position_is_scored() -> Result<()> {
    let run = Run::builder("progressive")
        .data("sequences")
        .set("sampler", "plain");
    let run = run
        .set("layer", "position_wise")
        .set("goodness", "at_positions");
    let run = run
        .set("loss", "cross_entropy")
        .set("head", false)
        .set("hidden", vec![20]);
    let run = run
        .set("normalise", "none")
        .set("epochs", 3)
        .set("batch", 20)
        .set("lr", 1.);
    let test = run.build()?.fit(&mut ())?.test;
    assert!(test.error < 0.2, "{}", test.error); // of 500 positions
    Ok(())
}
