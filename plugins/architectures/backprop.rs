//! Architecture `backprop`: the same nets trained by backpropagation, to measure the others by.

use onward_core::candle_core::{Tensor, Var, D};
use onward_core::candle_nn::Init;
use onward_core::contract::architecture::Readout;
use onward_core::kernels::log_softmax;
use onward_core::optim::{Algorithm, OptimiserSpec, Schedule};
use onward_core::plugin::registry::Preset;
use onward_core::{
    Architecture, Batch, Block, BuildContext, Error, GoodnessFn, Input, LocalLayer, Loss,
    NegativeSampler, Normalise, Objective, Optimiser, Report, Result, Role, Step, Values, Views,
};

onward_core::settings! {
    /// The yardstick, not a forward-only rule: rectified layers one upon the other, each output normalised, all of them
    /// concatenated into a softmax, `log softmax(Σₗ norm(aₗ)·Wₗ)`, trained end to end by backpropagation with the
    /// cross-entropy.
    ///
    /// It is the net that `nlp` and `progressive` train locally, on the same data and through the same reports: examples
    /// enter as the sampler's neutral views, without a label where it is `plain`; tokens are one-hot slots of which rows of
    /// the weight are picked.
    /// To the framework the whole net is one block, since a derivative crosses all of it.
    ///
    /// # Reference
    /// Rumelhart, Hinton, Williams, "Learning representations by back-propagating errors", 1986 (Nature 323).
    pub struct Backprop {
        /// The width of each layer, from the first on.
        hidden: Vec<usize> = vec![1000; 3], in 1..=1_000_000;
        /// What is done to the input and to every activity.
        normalise: Normalise = Normalise::MeanSquare;
        /// How gradients become updates.
        optimiser: Algorithm = Algorithm::Adam;
        /// Learning rate.
        lr: f64 = 0.0001, in f64::MIN_POSITIVE..=1000.;
        /// Weight decay; biases have none.
        weight_decay: f64 = 0., in 0. ..=1.;
        /// How much of the running mean of the gradients a step keeps; Adam has its own.
        momentum: f64 = 0.9, in 0. ..1.;
        /// How the rate changes over the epochs.
        schedule: Schedule = Schedule::Constant;
    }
}

const PRESETS: &[Preset] = &[Preset {
    name: "adam",
    about: "three layers of 1000 units, Adam at a constant rate",
    settings: r#"
        data = "digits"
        sampler = "plain"
        epochs = 5
        batch = 100
    "#,
}];

/// The whole net; its activity are the logits, `(B, C)`.
struct Whole {
    layers: Vec<[Var; 2]>,
    heads: Vec<Var>,
    normalise: Normalise,
}

impl Whole {
    fn new(settings: &Backprop, context: &BuildContext) -> Result<Self> {
        let mut inputs: usize = context.input.iter().product();
        let (mut layers, mut heads) = (Vec::new(), Vec::new());
        for (index, &units) in settings.hidden.iter().enumerate() {
            let vars = context.vars.scope(index);
            let init = Init::Randn {
                mean: 0.,
                stdev: 1. / (inputs.max(1) as f64).sqrt(),
            };
            layers.push([
                vars.get("weight", (inputs, units), init)?,
                vars.get("bias", units, Init::Const(0.))?,
            ]);
            heads.push(vars.get("head", (units, context.classes), Init::Const(0.))?);
            inputs = units;
        }
        Ok(Self {
            layers,
            heads,
            normalise: settings.normalise,
        })
    }

    fn normalised(&self, x: &Tensor) -> Result<Tensor> {
        let length = match self.normalise {
            Normalise::None => return Ok(x.clone()),
            Normalise::MeanSquare => (x.dim(D::Minus1)? as f64).sqrt(),
            Normalise::UnitLength => 1.,
        };
        // Added, not a lower bound: its derivative is finite at zero.
        let scale = ((x.sqr()?.sum_keepdim(1)? + 1e-12)?.sqrt()?.recip()? * length)?;
        Ok(x.broadcast_mul(&scale)?)
    }
}

impl LocalLayer for Whole {
    fn forward(&self, input: &Input, _step: &Step) -> Result<Tensor> {
        let input = input.clone().normalised(self.normalise)?;
        let mut activity: Option<Tensor> = None;
        let mut logits: Option<Tensor> = None;
        for ([weight, bias], head) in self.layers.iter().zip(&self.heads) {
            let sum = match &activity {
                Some(below) => below.matmul(weight)?,
                None => first(&input, weight)?,
            };
            let above = self.normalised(&sum.broadcast_add(bias)?.relu()?)?;
            let votes = above.matmul(head)?;
            logits = Some(match logits {
                None => votes,
                Some(logits) => (logits + votes)?,
            });
            activity = Some(above);
        }
        logits.ok_or_else(|| Error::Mismatch {
            place: "backprop".into(),
            problem: "a net needs a layer".into(),
        })
    }
}

/// The input times the first weight, part by part; tokens pick its rows.
fn first(input: &Input, weight: &Var) -> Result<Tensor> {
    let mut row = 0;
    let mut sum: Option<Tensor> = None;
    for part in input.parts() {
        let width = part.values.width()?;
        let rows = weight.narrow(0, row, width)?;
        let product = match &part.values {
            Values::OneHot {
                index,
                classes,
                strength,
            } => {
                let (batch, slots) = index.dims2()?;
                let starts: Vec<u32> = (0..slots).map(|slot| (slot * classes) as u32).collect();
                let starts = Tensor::new(starts.as_slice(), index.device())?;
                let picked = rows.index_select(&index.broadcast_add(&starts)?.flatten_all()?, 0)?;
                (picked.reshape((batch, slots, ()))?.sum(1)? * *strength)?
            }
            dense => dense
                .to_matrix(weight.dtype())?
                .contiguous()?
                .matmul(&rows)?,
        };
        let product = match &part.scale {
            Some(scale) => {
                product.broadcast_mul(&scale.to_dtype(product.dtype())?.unsqueeze(1)?)?
            }
            None => product,
        };
        sum = Some(match sum {
            None => product,
            Some(sum) => (sum + product)?,
        });
        row += width;
    }
    sum.ok_or_else(|| Error::Mismatch {
        place: "backprop".into(),
        problem: "nothing enters".into(),
    })
}

/// The logits themselves, a column per class.
struct Logits(usize);

impl GoodnessFn for Logits {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        Ok(activity.clone())
    }

    fn classes(&self) -> Option<usize> {
        Some(self.0)
    }
}

struct Net {
    block: Block,
}

impl Net {
    fn new(settings: &Backprop, context: &BuildContext) -> Result<Self> {
        let place = context.scope("net");
        let layer = Box::new(Whole::new(settings, &place)?);
        let descent = OptimiserSpec {
            method: settings.optimiser,
            rate: settings.lr,
            decay: settings.weight_decay,
            momentum: settings.momentum,
            schedule: settings.schedule,
        };
        let objective = Objective {
            loss: Loss::CrossEntropy,
            theta: None,
            temperature: 1.,
        };
        let optimiser = Optimiser::new(place.vars, descent, 0..context.epochs);
        let block = Block::new(
            "net",
            layer,
            Box::new(Logits(context.classes)),
            objective,
            Normalise::None,
            optimiser,
        );
        Ok(Self { block })
    }
}

impl Architecture for Net {
    fn learn(
        &mut self,
        batch: &Batch,
        sampler: &mut dyn NegativeSampler,
        step: &Step,
    ) -> Result<Vec<(usize, Report)>> {
        let input = sampler.neutral(batch)?;
        let views = Views::new(
            input.clone(),
            vec![Role::Positive],
            Some(batch.labels()?.to_vec()),
        )?;
        let logits = self.block.forward(&input, step)?;
        Ok(vec![(0, self.block.learn(&input, &logits, &views, step)?)])
    }

    fn scores(
        &self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        _readout: &str,
        step: &Step,
    ) -> Result<Tensor> {
        log_softmax(&self.block.forward(&sampler.neutral(batch)?, step)?.detach())
    }

    fn readouts(&self) -> Vec<Readout> {
        vec![Readout {
            name: "softmax",
            cheap: true,
            log_probabilities: true,
        }]
    }

    fn is_supervised(&self) -> bool {
        true
    }

    fn blocks(&self) -> &[Block] {
        std::slice::from_ref(&self.block)
    }

    fn blocks_mut(&mut self) -> &mut [Block] {
        std::slice::from_mut(&mut self.block)
    }
}

onward_core::register! {
    dyn Architecture, "backprop", "the yardstick: the same net by backpropagation (Rumelhart, Hinton, Williams 1986, Nature 323)",
    |settings: Backprop, context| Ok(Box::new(Net::new(&settings, context)?)),
    .presets(PRESETS)
}
