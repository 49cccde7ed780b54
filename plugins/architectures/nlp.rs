//! Architecture `nlp`: a language model of windows of tokens.

use onward_core::candle_core::{DType, Device, Tensor};
use onward_core::contract::architecture::Readout;
use onward_core::contract::sampler::every_class;
use onward_core::kernels::log_softmax;
use onward_core::optim::{Algorithm, OptimiserSpec, Schedule};
use onward_core::plugin::registry::Preset;
use onward_core::settings::Pick;
use onward_core::wiring::stack::{Level, Stack};
use onward_core::{
    Architecture, Batch, Block, BuildContext, Error, GoodnessFn, Head, Input, LocalLayer, Loss,
    NegativeSampler, Normalise, Objective, Report, Result, Step, Values,
};

onward_core::choices! {
    /// When the layers learn.
    pub enum Order {
        /// All of them in every step.
        Interleaved = "interleaved",
        /// One after the other, each for all epochs.
        Greedy = "greedy",
    }
}

onward_core::settings! {
    /// A language model: layers one upon the other learn which token follows a window of tokens, and a softmax over all
    /// their activities says which.
    ///
    /// Layer 1 sees a window of `K` tokens and a candidate for the next one, as one-hot slots of which rows of the
    /// weight are picked, or through a table that it learns itself (`embedding`). Layer `l` sees `xₗ = norm(aₗ₋₁)`. Every
    /// layer learns to tell the token that follows from a wrong one by its own goodness `gₗ`. The next token is
    /// predicted in two ways, both as log-probabilities:
    ///
    /// - *head*: `log softmax(Σₗ norm(aₗ)·Wₗ)` of the window with an empty candidate: one pass;
    /// - *search*: `log softmax_c(meanₗ (gₗ(c) − θₗ) / τₗ)` over all candidates `c`, or over the `candidates` that the head
    ///   finds likeliest; these then share the probability that the head gives them together, the others keep theirs.
    ///   The mean, since layers that look at the same window are no independent witnesses: their sum is too sure of itself.
    ///
    /// Three things differ from images (measured on Aesop's fables): the decision is softer, `temperature` per unit, the
    /// first layer learns ten times as fast, and the upper ones more slowly than the first (`upper_lr`), without which they
    /// stay near chance. The defaults suit a book of fables; a corpus of a megabyte needs another descent, that of the
    /// preset `corpus`. `tokenizer` is a shorthand for `data.tokenizer`.
    ///
    /// # Reference
    /// Hinton, "The Forward-Forward Algorithm", 2022, its experiment with Aesop's fables
    /// (<https://arxiv.org/abs/2212.13345>).
    pub struct Nlp {
        /// The width of each layer, from the first on.
        hidden: Vec<usize> = vec![1000; 3], in 1..=1_000_000;
        /// The kind of the layers.
        layer: Pick<dyn LocalLayer> = "dense".into();
        /// The length of a token's row in the table of the first layer, which then is an `embedding`; 0 for one-hot tokens,
        /// no table, and a first layer like the others.
        embedding: usize = 0, in 0..=100_000;
        /// The goodness of all layers.
        goodness: Pick<dyn GoodnessFn> = "sum_squares".into();
        /// What a layer minimises.
        loss: Loss = Loss::Logistic;
        /// The goodness above which a view counts as positive; the goodness's own threshold if it is not set.
        theta: Option<f64> = None, in f64::MIN..;
        /// How soft that decision is: (goodness − theta) is divided by this times the number of units.
        temperature: f64 = 0.1, in f64::MIN_POSITIVE..;
        /// What is done to the input, and to every activity before the next layer sees it.
        normalise: Normalise = Normalise::MeanSquare;
        /// When the layers learn; with greedy, `epochs` is the number for each layer.
        order: Order = Order::Interleaved;
        /// Whether the hidden layers stay as they were drawn and only the head learns: random features, a baseline.
        frozen: bool = false;
        /// How gradients become updates.
        optimiser: Algorithm = Algorithm::Sgd;
        /// Learning rate of the first layer.
        lr: f64 = 0.1, in f64::MIN_POSITIVE..=1000.;
        /// Learning rate of the other layers, relative to the first.
        upper_lr: f64 = 0.25, in f64::MIN_POSITIVE..=1000.;
        /// Weight decay of the layers; biases have none.
        weight_decay: f64 = 0.001, in 0. ..=1.;
        /// How much of the running mean of the gradients a step keeps; Adam has its own.
        momentum: f64 = 0.9, in 0. ..1.;
        /// How the rates change over the epochs in which a layer learns.
        schedule: Schedule = Schedule::Linear;
        /// How gradients become updates of the head.
        head_optimiser: Algorithm = Algorithm::Adam;
        /// Learning rate of the head.
        head_lr: f64 = 0.0002, in f64::MIN_POSITIVE..=1000.;
        /// Weight decay of the head.
        head_weight_decay: f64 = 0., in 0. ..=1.;
        /// How many candidates, the likeliest by the head, the search tries; 0 for all tokens. If it is not set, all of a
        /// vocabulary of up to 256 tokens, and 20 of a larger one.
        candidates: Option<usize> = None;
    }
}

const PRESETS: &[Preset] = &[
    Preset {
        name: "window",
        about: "three layers of 1000 units on a window of 10 characters, negatives from the model's own prediction",
        settings: r#"
            data = "fables"
            epochs = 10
            batch = 128
            sampler = { name = "next_token", negatives = "predicted" }
    "#,
    },
    Preset {
        name: "hinton",
        about: "as in Hinton 2022: strings of 100 characters of Aesop's fables, of which you name the file, three layers of 2000 units",
        settings: r#"
            data = { name = "text", prepare = "hinton" }
            epochs = 10
            batch = 128
            hidden = [2000, 2000, 2000]
            candidates = 0
            sampler = { name = "next_token", negatives = "predicted" }
        "#,
    },
    Preset {
        name: "corpus",
        about: "for texts of a megabyte and more, of which you name the file: few epochs, by Adam",
        settings: r#"
            data = "text"
            epochs = 4
            batch = 128
            optimiser = "adam"
            lr = 0.001
            temperature = 0.2
            candidates = 5
            sampler = { name = "next_token", negatives = "predicted" }
        "#,
    },
];

struct Net {
    stack: Stack,
    vocabulary: usize,
    /// How many the search tries.
    candidates: usize,
    readouts: Vec<Readout>,
}

impl Net {
    fn new(settings: &Nlp, context: &BuildContext) -> Result<Self> {
        let (slots, vocabulary) = (
            context.input.iter().product::<usize>() / context.classes.max(1),
            context.classes,
        );
        if context.tokenizer.is_none()
            || slots * vocabulary != context.input.iter().product::<usize>()
        {
            let problem =
                "it learns text; choose data of text, as in --data text:FILE, and a sampler for it"
                    .to_string();
            return Err(Error::Mismatch {
                place: "nlp".into(),
                problem,
            });
        }
        let descent = OptimiserSpec {
            method: settings.optimiser,
            rate: settings.lr,
            decay: settings.weight_decay,
            momentum: settings.momentum,
            schedule: settings.schedule,
        };
        let mut table = Pick::<dyn LocalLayer>::new("embedding");
        table
            .settings
            .insert("dims".into(), (settings.embedding as i64).into());
        let level = |(index, &units): (usize, &usize)| Level {
            units,
            layer: if index == 0 && settings.embedding > 0 {
                table.clone()
            } else {
                settings.layer.clone()
            },
            goodness: settings.goodness.clone(),
            objective: Objective {
                loss: settings.loss,
                theta: settings.theta,
                temperature: settings.temperature * units as f64,
            },
            descent: OptimiserSpec {
                rate: settings.lr * if index == 0 { 1. } else { settings.upper_lr },
                ..descent
            },
            span: match (settings.frozen, settings.order) {
                (true, _) => 0..0,
                (_, Order::Interleaved) => 0..context.epochs,
                (_, Order::Greedy) => index * context.epochs..(index + 1) * context.epochs,
            },
        };
        let levels: Vec<Level> = settings.hidden.iter().enumerate().map(level).collect();
        let index = Tensor::zeros((1, slots), DType::U32, &Device::Cpu)?
            .to_device(&context.vars.device())?;
        let example = Values::OneHot {
            index,
            classes: vocabulary,
            strength: 1.,
        };
        let example = Input::new(vec![example], 1, 1, &[slots * vocabulary])?;
        let (rate, decay) = (settings.head_lr, settings.head_weight_decay);
        let stack = Stack::new(
            context,
            example,
            settings.normalise,
            &levels,
            0..levels.len(),
        )?
        .with_head(
            context,
            OptimiserSpec {
                method: settings.head_optimiser,
                rate,
                decay,
                ..descent
            },
            0,
        )?;
        let mut readouts = vec![Readout {
            name: "head",
            cheap: true,
            log_probabilities: true,
        }];
        if context.hypotheses && stack.classes().is_none() {
            readouts.push(Readout {
                name: "search",
                cheap: false,
                log_probabilities: true,
            });
        }
        let candidates = match settings.candidates {
            Some(0) => vocabulary,
            None if vocabulary <= FEW => vocabulary,
            candidates => candidates.unwrap_or(20).min(vocabulary),
        };
        Ok(Self {
            stack,
            vocabulary,
            candidates,
            readouts,
        })
    }

    /// Log-probabilities by the goodness of the window with each candidate in turn, `(B, T)`.
    fn search(&self, batch: &Batch, sampler: &dyn NegativeSampler, step: &Step) -> Result<Tensor> {
        if self.candidates == self.vocabulary {
            return log_softmax(&self.logits(
                batch,
                &every_class(self.vocabulary, batch)?,
                sampler,
                step,
            )?);
        }
        let head = self
            .stack
            .head(sampler.neutral(batch)?, step)?
            .contiguous()?; // (B, T)
        let best = likeliest(&head, self.candidates)?; // (B, K)
        let among = log_softmax(&self.logits(batch, &best.t()?.contiguous()?, sampler, step)?)?;
        // What the head gives to all of them together is divided anew.
        let theirs = head.gather(&best, 1)?;
        let together = theirs.exp()?.sum_keepdim(1)?.log()?;
        let difference = (among.broadcast_add(&together)? - theirs)?;
        Ok(head.scatter_add(&best, &difference, 1)?)
    }

    /// What `candidates`, `(K, B)`, come to: `(B, K)`.
    fn logits(
        &self,
        batch: &Batch,
        candidates: &Tensor,
        sampler: &dyn NegativeSampler,
        step: &Step,
    ) -> Result<Tensor> {
        let (count, size) = candidates.dims2()?;
        // Some at a time, so that memory does not grow with the vocabulary.
        let beside = (ROWS / size.max(1)).max(1);
        let mut sums = Vec::with_capacity(count.div_ceil(beside));
        for first in (0..count).step_by(beside) {
            let some = candidates.narrow(0, first, beside.min(count - first))?;
            let input = sampler
                .hypotheses(batch, &some)?
                .ok_or_else(|| Error::Mismatch {
                    place: "nlp".into(),
                    problem: "the sampler makes no hypotheses, so candidates cannot be searched"
                        .into(),
                })?;
            sums.push(self.stack.log_odds(input, step)?); // (K·B,)
        }
        let sum = Tensor::cat(&sums, 0)?
            .reshape((count, size))?
            .t()?
            .contiguous()?;
        Ok((sum / self.stack.blocks.len() as f64)?)
    }
}

/// The vocabularies of which a search tries all tokens, unless it is told otherwise.
const FEW: usize = 256;

/// How many rows of windows with candidates are looked at side by side.
const ROWS: usize = 8192;

/// The indices of the `count` largest numbers of each row, the largest first: `(B, T)` to `(B, K)`.
fn likeliest(rows: &Tensor, count: usize) -> Result<Tensor> {
    let numbers = rows
        .to_device(&Device::Cpu)?
        .to_dtype(DType::F32)?
        .to_vec2::<f32>()?;
    let best = numbers.iter().flat_map(|row| {
        let order = |a: &u32, b: &u32| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b));
        let mut indices: Vec<u32> = (0..row.len() as u32).collect();
        if count < indices.len() {
            indices.select_nth_unstable_by(count, order);
            indices.truncate(count);
        }
        indices.sort_unstable_by(order);
        indices
    });
    Ok(Tensor::from_iter(best, &Device::Cpu)?
        .reshape((numbers.len(), count))?
        .to_device(rows.device())?)
}

impl Architecture for Net {
    fn learn(
        &mut self,
        batch: &Batch,
        sampler: &mut dyn NegativeSampler,
        step: &Step,
    ) -> Result<Vec<(usize, Report)>> {
        self.stack.learn(batch, sampler, step)
    }

    fn scores(
        &self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        readout: &str,
        step: &Step,
    ) -> Result<Tensor> {
        match readout {
            "search" => self.search(batch, sampler, step),
            _ => self.stack.head(sampler.neutral(batch)?, step),
        }
    }

    fn readouts(&self) -> Vec<Readout> {
        self.readouts.clone()
    }

    fn blocks(&self) -> &[Block] {
        &self.stack.blocks
    }

    fn blocks_mut(&mut self) -> &mut [Block] {
        &mut self.stack.blocks
    }

    fn heads(&self) -> &[Head] {
        &self.stack.heads
    }

    fn heads_mut(&mut self) -> &mut [Head] {
        &mut self.stack.heads
    }

    fn epochs(&self) -> usize {
        self.stack.epochs()
    }
}

/// `tokenizer` and `window` are settings of the data.
fn shorthand(
    given: &mut onward_core::export::Table,
    _before: &onward_core::export::Table,
) -> Result<()> {
    for key in ["tokenizer", "window"] {
        let Some(value) = given.remove(key) else {
            continue;
        };
        let data = given
            .entry("data")
            .or_insert_with(|| onward_core::export::Table::new().into());
        if let Some(data) = data.as_table_mut() {
            data.insert(key.into(), value);
        }
    }
    Ok(())
}

onward_core::register! {
    dyn Architecture, "nlp", "a language model of windows of tokens, layer by layer (Hinton 2022, arXiv 2212.13345)",
    |settings: Nlp, context| Ok(Box::new(Net::new(&settings, context)?)),
    .presets(PRESETS).shorthand(shorthand)
}

#[cfg(test)]
mod tests {
    use super::*;
    use onward_core::data::DataSet;
    use onward_core::{registry, Vars};

    /// The place of a net for the fables, a sampler and some of their windows.
    fn of_fables(windows: &[usize]) -> Result<(BuildContext, Box<dyn NegativeSampler>, Batch)> {
        let mut context = BuildContext::new(Vars::new(1, DType::F32, &Device::Cpu), 1);
        let data = registry::build(&Pick::<DataSet>::new("fables"), &context)?;
        (context.example, context.classes, context.hypotheses) =
            (data.kind.shape, data.kind.classes.len(), true);
        context.tokenizer = data.text.map(|text| text.tokenizer);
        let sampler = registry::build(&Pick::<dyn NegativeSampler>::new("next_token"), &context)?;
        let batch = data.test.batch(windows, None)?;
        context.input = sampler.neutral(&batch)?.shape().to_vec();
        Ok((context, sampler, batch))
    }

    /// The goodness of each layer by hand, as log-odds; a candidate's logit is their mean.
    #[test]
    fn the_search_weighs_candidates_by_the_mean_of_the_layers() -> Result<()> {
        let (context, sampler, batch) = of_fables(&[0, 7])?;
        let batch = batch.hidden();
        let (widths, temperature) = ([4, 9], 0.3);
        let net = Net::new(
            &Nlp {
                hidden: widths.to_vec(),
                temperature,
                ..Nlp::default()
            },
            &context,
        )?;
        let step = Step::evaluation(1);

        let candidates = every_class(context.classes, &batch)?;
        let mut heard = sampler
            .hypotheses(&batch, &candidates)?
            .expect("it makes hypotheses");
        heard = heard.normalised(Normalise::MeanSquare)?;
        let mut logits = vec![0f64; context.classes * batch.size()];
        for (block, units) in net.blocks().iter().zip(widths) {
            let activity = block.forward(&heard, &step)?;
            for (logit, activity) in logits.iter_mut().zip(activity.to_vec2::<f32>()?) {
                let goodness: f64 = activity.iter().map(|a| f64::from(a * a)).sum();
                *logit +=
                    (goodness - units as f64) / (temperature * units as f64) / widths.len() as f64;
            }
            heard = block.pass_on(&activity, context.classes)?;
        }
        let found = net
            .scores(&batch, &*sampler, "search", &step)?
            .to_vec2::<f32>()?;
        for (example, found) in found.iter().enumerate() {
            let logit = |class: usize| logits[class * batch.size() + example];
            let sum = (0..context.classes)
                .map(|class| logit(class).exp())
                .sum::<f64>()
                .ln();
            for (class, found) in found.iter().enumerate() {
                let expected = logit(class) - sum;
                assert!(
                    (f64::from(*found) - expected).abs() < 1e-4,
                    "{class}: {found} instead of {expected}"
                );
            }
        }
        Ok(())
    }

    /// Those that are tried share what the head gives them together; the others keep theirs.
    #[test]
    fn the_likeliest_candidates_are_tried_and_nobody_else_loses() -> Result<()> {
        let (context, sampler, batch) = of_fables(&[0, 7, 30])?;
        let settings = Nlp {
            hidden: vec![6],
            candidates: Some(5),
            ..Nlp::default()
        };
        let (mut net, step) = (Net::new(&settings, &context)?, Step::evaluation(1));
        // A head that has learned has favourites.
        let features = net.stack.features(sampler.neutral(&batch)?, &step)?;
        let log = net.stack.heads[0].log_probabilities(&features)?;
        net.stack.heads[0].learn(
            &features,
            &log,
            batch.labels()?,
            &Step {
                train: true,
                ..step
            },
        )?;
        let [head, found] =
            ["head", "search"].map(|readout| net.scores(&batch, &*sampler, readout, &step));
        let (head, found) = (head?.to_vec2::<f32>()?, found?.to_vec2::<f32>()?);
        for (head, found) in head.iter().zip(found) {
            let mut order: Vec<usize> = (0..head.len()).collect();
            order.sort_by(|&a, &b| head[b].total_cmp(&head[a]).then(a.cmp(&b)));
            let together = |row: &[f32]| {
                order[..5]
                    .iter()
                    .map(|&token| f64::from(row[token]).exp())
                    .sum::<f64>()
            };
            assert!((together(head) - together(&found)).abs() < 1e-5);
            assert!(
                order[..5]
                    .iter()
                    .any(|&token| (head[token] - found[token]).abs() > 1e-3),
                "nothing was tried"
            );
            assert!(order[5..].iter().all(|&token| head[token] == found[token]));
            assert!((found.iter().map(|log| f64::from(*log).exp()).sum::<f64>() - 1.).abs() < 1e-5);
        }
        Ok(())
    }
}
