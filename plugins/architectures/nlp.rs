//! Architecture `nlp`: a language model on windows of tokens.

mod presets;

use onward_core::candle_core::{DType, Device, Tensor};
use onward_core::contract::head::{self, HeadRule, HeadSpec};
use onward_core::contract::negatives::every_class;
use onward_core::contract::staged::Staged;
use onward_core::export::Table;
use onward_core::kernels::log_softmax;
use onward_core::optim::{Algorithm, OptimiserSpec, Schedule, Span};
use onward_core::plugin::registry::DataKind;
use onward_core::settings::{Idle, Pick, Positive, Settings};
use onward_core::wiring::stack::{no_hypotheses, Level, Order, Stack};
use onward_core::{
    Architecture, Batch, BuildContext, Error, GoodnessFn, LocalLayer, Loss, NegativeSampler, Net,
    Normalise, Objective, Readout, Result, Step, StepReport,
};

use self::presets::PRESETS;

onward_core::settings! {
    /// A language model: stacked layers learn which token follows a window of tokens, and
    /// a softmax over all activities predicts it.
    ///
    /// Layer 1 sees a window of `K` tokens and a candidate for the next one, as one-hot
    /// slots that pick rows of the weight, or through a table that it learns itself
    /// (`embedding`). Layer `l` sees `xₗ = norm(aₗ₋₁)`. Every layer learns with its own
    /// goodness `gₗ` to tell the next token from a wrong one. The next token is predicted
    /// in two ways, both as log-probabilities:
    ///
    /// - *head*: `log softmax(Σₗ norm(aₗ)·Wₗ)` of the window with an empty candidate, in
    ///   one pass;
    /// - *search*: `log softmax_c(meanₗ (gₗ(c) − θₗ) / τₗ)` over all candidates `c`, or
    ///   over the `candidates` most probable tokens of the head. These then share the
    ///   probability that the head gives them together; the others keep theirs. It is the
    ///   mean, since layers that see the same window are not independent: their sum is
    ///   overconfident.
    ///
    /// Three defaults differ from those for images (measured on Aesop's fables). The
    /// decision is softer: the goodness is divided by `temperature` times the number of
    /// units. The first layer learns ten times as fast. The upper layers learn more
    /// slowly than the first (`upper_lr`); without that they stay near chance. The
    /// defaults suit a book of fables; a corpus of a megabyte needs the preset
    /// `contrast`.
    ///
    /// Where no other network is chosen, `text:FILE` gets the preset `book` or,
    /// from half a megabyte on, `corpus`, which divides the text into byte pairs; with
    /// `--set tokenizer=char` it gets `characters`. In all three the layer learns by a
    /// local classifier instead of negative views, and sees hashed ends of the text before
    /// beside the tokens of the window (`sampler.ngrams`, `sampler.words`), so that it has a
    /// row of weights for every end that it meets. `tokenizer` and `window` are shorthands
    /// for `data.tokenizer` and `data.window`.
    ///
    /// # Reference
    /// Hinton, "The Forward-Forward Algorithm", 2022, its experiment with Aesop's fables
    /// (<https://arxiv.org/abs/2212.13345>).
    pub struct Nlp {
        /// The width of each layer, starting at the first.
        hidden: Vec<usize> = vec![1000; 3], in 1..=1_000_000;
        /// The layer, one for all.
        layer: Pick<dyn LocalLayer> = "dense".into();
        /// The size of the token embeddings of the first layer, which is then an
        /// `embedding`; 0 for one-hot tokens and a first layer like the others.
        embedding: usize = 0, in 0..=100_000;
        /// The goodness function, one for all layers.
        goodness: Pick<dyn GoodnessFn> = "sum_squares".into();
        /// The normalisation of the input, and of every activity before the next layer
        /// sees it.
        normalise: Normalise = Normalise::MeanSquare;
        /// The order in which layers learn; with greedy, `epochs` is the number per
        /// layer.
        order: Order = Order::Interleaved;
        /// Whether the layers keep their random weights and only the head learns: a
        /// baseline of random features, without a search.
        frozen: bool = false;
        /// The learning rate of all layers except the first, relative to the first.
        upper_lr: f64 = 0.25, in Positive.up_to(1000.);
        /// The number of candidates of the search, the most probable tokens of the head;
        /// 0 for all tokens. Default: all tokens of a vocabulary of up to 256, otherwise
        /// 20 tokens.
        candidates: Option<usize> = None;
        /// The number of tokens that a step compares besides those that follow its
        /// windows: half are the most frequent ones, half are drawn at random (a
        /// sampled softmax). Adam leaves the weights of the other tokens as they are. 0
        /// for all tokens, as in vocabularies of up to twice as many.
        samples: usize = 0, in 0..=10_000_000;
        .. objective: Objective = Objective { temperature: 0.1, ..Objective::default() };
        .. optimiser: OptimiserSpec = OptimiserSpec {
            lr: 0.1,
            schedule: Schedule::Linear,
            ..OptimiserSpec::default()
        };
        .. head_spec: HeadSpec = HeadSpec {
            head_optimiser: Algorithm::Adam,
            head_lr: 0.0002,
            head_weight_decay: 0.,
            ..HeadSpec::default()
        };
    }
}

/// The largest vocabulary for which the search tries all tokens by default.
const FEW: usize = 256;

/// The number of windows with candidates that are computed at once.
const ROWS: usize = 8192;

struct LanguageModel {
    stack: Stack,
    vocabulary: usize,
    /// The number of candidates that the search tries.
    candidates: usize,
}

impl LanguageModel {
    fn new(settings: &Nlp, context: &BuildContext) -> Result<Self> {
        let vocabulary = context.classes;
        let neutral = context.neutral.clone();
        let Some(example) = neutral.filter(|_| context.tokenizer.is_some()) else {
            let problem = "expected text; choose a text data set, such \
                           as --data text:FILE, and a sampler for text";
            return Err(Error::unfit("nlp", problem));
        };
        let context = &context
            .clone()
            .with_samples(compared(settings.samples, vocabulary));
        let levels: Vec<Level> = levels(settings, context);
        let readout = 0..levels.len();
        let stack = Stack::new(context, example, settings.normalise, &levels, readout)?;
        let head = settings.head_spec.beside(&settings.optimiser);
        let mut stack = stack.with_head(context, head, 0)?;
        let mut readouts = vec![Readout::new("head").cheap().with_log_probabilities()];
        if context.hypotheses && stack.classes().is_none() && stack.is_learned() {
            readouts.push(Readout::new("search").with_log_probabilities());
        }
        stack.net.readouts = readouts;
        let candidates = match settings.candidates {
            Some(0) => vocabulary,
            None if vocabulary <= FEW => vocabulary,
            candidates => candidates.unwrap_or(20).min(vocabulary),
        };
        Ok(Self {
            stack,
            vocabulary,
            candidates,
        })
    }

    /// Log-probabilities from the goodness of the window with each candidate, `(B, T)`.
    fn search(&self, batch: &Batch, sampler: &dyn NegativeSampler, step: &Step) -> Result<Tensor> {
        if self.candidates == self.vocabulary {
            let all = every_class(self.vocabulary, batch)?;
            return log_softmax(&self.logits(batch, &all, sampler, step)?);
        }
        let head = self
            .stack
            .head(sampler.neutral(batch)?, step)?
            .contiguous()?; // (B, T)
        let best = likeliest(&head, self.candidates)?; // (B, K)
        let logits = self.logits(batch, &best.t()?.contiguous()?, sampler, step)?;
        let among = log_softmax(&logits)?;
        // The candidates share the probability that the head gives them together.
        let theirs = head.gather(&best, 1)?;
        let together = theirs.exp()?.sum_keepdim(1)?.log()?;
        let difference = (among.broadcast_add(&together)? - theirs)?;
        Ok(head.scatter_add(&best, &difference, 1)?)
    }

    /// The logits of `candidates`, `(K, B)`: `(B, K)`.
    fn logits(
        &self,
        batch: &Batch,
        candidates: &Tensor,
        sampler: &dyn NegativeSampler,
        step: &Step,
    ) -> Result<Tensor> {
        let (count, size) = candidates.dims2()?;
        // Some candidates at a time, so that memory does not grow with the vocabulary.
        let beside = (ROWS / size.max(1)).max(1);
        let mut sums = Vec::with_capacity(count.div_ceil(beside));
        for first in (0..count).step_by(beside) {
            let some = candidates.narrow(0, first, beside.min(count - first))?;
            let input = sampler
                .hypotheses(batch, &some)?
                .ok_or_else(no_hypotheses)?;
            sums.push(self.stack.log_odds(input, step)?); // (K·B,)
        }
        let sum = Tensor::cat(&sums, 0)?
            .reshape((count, size))?
            .t()?
            .contiguous()?;
        Ok((sum / self.stack.net.blocks.len() as f64)?)
    }
}

/// The number of tokens that a step compares; 0 for all.
fn compared(samples: usize, vocabulary: usize) -> usize {
    match vocabulary > 2 * samples {
        true => samples,
        false => 0,
    }
}

fn levels(settings: &Nlp, context: &BuildContext) -> Vec<Level> {
    let mut table = Pick::<dyn LocalLayer>::new("embedding");
    table
        .settings
        .insert("dims".into(), (settings.embedding as i64).into());
    let level = |(index, &units): (usize, &usize)| {
        let is_first = index == 0;
        let has_table = is_first && settings.embedding > 0;
        let rate = if is_first { 1. } else { settings.upper_lr };
        let temperature = settings.objective.temperature * units as f64;
        Level {
            units,
            layer: if has_table {
                table.clone()
            } else {
                settings.layer.clone()
            },
            goodness: settings.goodness.clone(),
            objective: Objective {
                temperature,
                ..settings.objective.clone()
            },
            optimiser: OptimiserSpec {
                lr: settings.optimiser.lr * rate,
                ..settings.optimiser.clone()
            },
            span: match settings.frozen {
                true => Span::Epochs(0..0),
                false => settings.order.span(index, context.epochs),
            },
            dropout: 0.,
            shortcuts: Vec::new(),
        }
    };
    settings.hidden.iter().enumerate().map(level).collect()
}

/// The indices of the `count` largest numbers of each row, the largest first: `(B, T)` to
/// `(B, K)`.
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
    let best = Tensor::from_iter(best, &Device::Cpu)?.reshape((numbers.len(), count))?;
    Ok(best.to_device(rows.device())?)
}

impl Architecture for LanguageModel {
    fn learn(
        &mut self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        step: &Step,
    ) -> Result<Vec<(usize, StepReport)>> {
        self.stack.learn(batch, sampler, step)
    }

    fn scores(
        &self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        readout: &Readout,
        step: &Step,
    ) -> Result<Tensor> {
        match readout.name {
            "search" => self.search(batch, sampler, step),
            _ => self.stack.head(sampler.neutral(batch)?, step),
        }
    }

    fn activities(
        &self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        step: &Step,
    ) -> Result<Vec<Tensor>> {
        self.stack.activities(batch, sampler, step)
    }

    fn staged(&mut self) -> Option<&mut dyn Staged> {
        Some(&mut self.stack)
    }

    fn net(&self) -> &Net {
        &self.stack.net
    }

    fn net_mut(&mut self) -> &mut Net {
        &mut self.stack.net
    }
}

/// Moves `tokenizer` and `window` to the settings of the data.
fn shorthand(given: &mut Table, _before: &mut Table) -> Result<()> {
    for key in ["tokenizer", "window"] {
        let Some(value) = given.remove(key) else {
            continue;
        };
        let data = given.entry("data").or_insert_with(|| Table::new().into());
        if let Some(data) = data.as_table_mut() {
            if let Some(other) = data.get(key).filter(|other| **other != value) {
                let expected = format!("{other}, as `data.{key}`, or one of the two alone");
                return Err(Error::setting(key, &value, "", expected));
            }
            data.insert(key.into(), value);
        }
    }
    Ok(())
}

/// The settings of layers that learn, and of a search by their goodness.
const OF_LEARNING: [&str; 15] = [
    "loss",
    "theta",
    "temperature",
    "order",
    "upper_lr",
    "candidates",
    "goodness.positive",
    "layer.dropout",
    "layer.peer",
    "layer.peer_momentum",
    "sampler.length",
    "sampler.negatives",
    "sampler.pool",
    "sampler.refresh",
    "sampler.strength",
];

/// The settings of all layers except an `embedding`.
const OF_LAYER: [&str; 12] = [
    "layer.name",
    "layer.units",
    "layer.bias",
    "layer.dropout",
    "layer.input_norm",
    "layer.passes",
    "layer.peer",
    "layer.peer_momentum",
    "layer.norm",
    "layer.norm_momentum",
    "layer.slope",
    "layer.ridge",
];

/// The settings without an effect beside others.
fn idle(own: &Table, _: &Table) -> Result<Vec<Idle>> {
    let settings = Nlp::read(own)?;
    let learn = !settings.frozen;
    let mut idle = head::idle(&settings.optimiser, learn, Some(&settings.head_spec));
    if settings.frozen {
        let because = "the layers are frozen (`frozen = true`)";
        idle.extend(Idle::all(&OF_LEARNING, because));
    }
    if settings.embedding > 0 && settings.hidden.len() == 1 {
        let because = "the only layer is an `embedding` (`embedding` is not 0)";
        idle.extend(Idle::all(&OF_LAYER, because));
    }
    if settings.hidden.len() == 1 {
        idle.extend(Idle::all(&["upper_lr", "order"], "there is one layer"));
    }
    if settings.objective.loss == Loss::CrossEntropy {
        let because = "there is no search with a goodness for each token";
        idle.extend(Idle::all(&["candidates"], because));
    }
    let solved = settings.head_spec.head_rule == HeadRule::Ridge;
    let classifies = settings.objective.loss == Loss::CrossEntropy
        && settings.goodness.name == "projection"
        && learn;
    if solved && !classifies {
        let because = "the head is solved for, and no layer learns by a `projection`";
        idle.extend(Idle::all(&["samples"], because));
    }
    let mut of_loss = settings.objective.idle();
    // The search uses it.
    of_loss.retain(|idle| idle.key != "temperature");
    idle.extend(of_loss);
    Ok(idle)
}

onward_core::register! {
    dyn Architecture, "nlp",
    "language model on windows of tokens, layer by layer (Hinton 2022, arXiv 2212.13345)",
    |settings: Nlp, context| Ok(Box::new(LanguageModel::new(&settings, context)?)),
    .presets(PRESETS).rewrite(shorthand).idle(idle).reads(&["theta", "temperature"])
    .of_text()
    .suits(&[
        (DataKind::Book, "book"),
        (DataKind::Corpus, "corpus"),
        (DataKind::Characters, "characters"),
    ])
}

#[cfg(test)]
mod tests;
