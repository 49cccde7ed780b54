//! Sampler `next_token`: a context, and a candidate for the next token.

use onward_core::candle_core::{DType, Device, Tensor, Var};
use onward_core::contract::negatives::{uniform_wrong, with_predicted_wrong, with_wrong};
use onward_core::data::text::context::{ContextInputs, ContextReader};
use onward_core::flow::examples::Examples;
use onward_core::flow::input::LABEL;
use onward_core::flow::random::{below, unit};
use onward_core::settings::{Idle, Positive, Settings};
use onward_core::{
    Batch, BuildContext, Error, Input, NegativeSampler, Prediction, Result, Role, Step, Values,
    Views,
};

onward_core::choices! {
    /// How the wrong token of a negative view is drawn.
    pub enum Negatives {
        /// In proportion to the network's own probability of each wrong token.
        Predicted = "predicted",
        /// All wrong tokens equally likely.
        Uniform = "uniform",
        /// Windows of text that the network has generated, instead of a wrong token after
        /// a real context.
        RollOuts = "roll_outs",
    }
}

onward_core::settings! {
    /// A window of `K` tokens and a candidate for the next one, each a one-hot slot as
    /// wide as the vocabulary `V`: `[K·V context | V candidate]`. The next token makes
    /// the positive view, a wrong token the negative view, and an empty slot the
    /// neutral view. Context inputs (`ngrams`, `words`, `layout`, `recent`) are between the
    /// two.
    ///
    /// The context is one part for all views and candidates. One-hot slots pick rows of
    /// the weight, without a multiplication.
    ///
    /// With `roll_outs` the network continues `pool` random windows of the training part
    /// by `length` tokens each, drawn from its own probabilities. A negative view is a
    /// random window of that text, with the token that the network drew next. The pool is
    /// generated again before every `refresh`-th epoch in which a layer learns, and is part
    /// of a checkpoint.
    ///
    /// # Reference
    /// Hinton, "The Forward-Forward Algorithm", 2022
    /// (<https://arxiv.org/abs/2212.13345>): negatives with a last character that the
    /// network predicts, or generated offline.
    pub struct NextToken {
        /// How the wrong token of a negative view is drawn. It is never the true one;
        /// roll-outs may equal the text by chance.
        negatives: Negatives = Negatives::Predicted;
        /// The value of the candidate's entry; those of the context are 1.
        strength: f64 = 3., in Positive.up_to(1e6);
        /// The number of roll-outs.
        pool: usize = 1000, in 1..=1_000_000;
        /// The number of generated tokens in a roll-out.
        length: usize = 50, in 1..=10_000;
        /// The number of epochs after which roll-outs are generated again.
        refresh: usize = 1, in 1..;
        .. contexts: ContextInputs = ContextInputs::default();
    }
}

/// The number of roll-outs that are generated at once.
const BESIDE: usize = 500;

struct Sampler {
    settings: NextToken,
    reader: ContextReader,
    vocabulary: usize,
    pool: Option<Pool>,
}

/// Roll-outs, each with its initial window.
struct Pool {
    /// `(pool, K + length)`.
    tokens: Var,
    /// 1 if the roll-outs were generated, `(1,)`.
    made: Var,
}

impl Pool {
    fn is_made(&self) -> Result<bool> {
        Ok(self.made.to_vec1::<u32>()? == [1])
    }
}

impl Sampler {
    fn new(settings: NextToken, context: &BuildContext) -> Result<Self> {
        let Some(tokenizer) = &context.tokenizer else {
            let problem = "expected text; choose a text data set, or another `sampler`";
            return Err(Error::unfit("next_token", problem));
        };
        let reach = context.reach();
        let reader = ContextReader::new(&settings.contexts, tokenizer, reach)?;
        let pool = match settings.negatives {
            Negatives::RollOuts => {
                let shape = (settings.pool, reach.tokens() + settings.length);
                let tokens = context.vars.state("pool", shape, DType::U32)?;
                Some(Pool {
                    tokens,
                    made: context.vars.state("pool_made", 1, DType::U32)?,
                })
            }
            _ => None,
        };
        Ok(Self {
            settings,
            reader,
            vocabulary: context.classes,
            pool,
        })
    }

    /// The input `[context | candidate]`. The context has rows for every view, or shared
    /// rows for all views.
    fn input(&self, context: &Tensor, candidate: Values, batch: usize) -> Result<Input> {
        let width = self.reader.width() + self.vocabulary;
        let views = candidate.rows()? / batch;
        let mut parts = self.reader.parts(context)?;
        parts.push(candidate.named(LABEL));
        Input::new(parts, batch, views, &[width])
    }

    fn candidates(&self, index: Tensor) -> Values {
        Values::OneHot {
            index,
            classes: self.vocabulary,
            strength: self.settings.strength,
        }
    }

    /// Windows of the pool with the next token of each, one for each example of the
    /// batch.
    fn rolled_out(&self, pool: &Pool, batch: &Batch, step: &Step) -> Result<(Tensor, Vec<u32>)> {
        let (window, size) = (batch.rows().dim(1)?, batch.size());
        let (roll_outs, length) = pool.tokens.dims2()?;
        let mut rng = step.stream("negatives");
        let mut places = Vec::with_capacity(size);
        for _ in 0..size {
            let row = below(&mut rng, roll_outs) as u32;
            // The first window is real text, and so may be the token after it.
            let start = match length - window {
                1 => 0,
                more => 1 + below(&mut rng, more - 1),
            };
            places.push((row, start));
        }
        let rows = places.iter().map(|(row, _)| *row);
        let rows = Tensor::from_iter(rows, pool.tokens.device())?;
        let rows = pool.tokens.index_select(&rows, 0)?;
        let rows = rows.to_device(&Device::Cpu)?.to_vec2::<u32>()?;
        let (mut contexts, mut next) =
            (Vec::with_capacity(window * size), Vec::with_capacity(size));
        for (row, (_, start)) in rows.iter().zip(places) {
            contexts.extend_from_slice(&row[start..start + window]);
            next.push(row[start + window]);
        }
        Ok((
            Tensor::from_vec(contexts, (size, window), batch.device())?,
            next,
        ))
    }

    /// Continues random windows of the training part; returns rows of tokens.
    fn roll_out(
        &self,
        train: &dyn Examples,
        predict: &dyn Fn(&Batch) -> Result<Tensor>,
        step: &Step,
    ) -> Result<Vec<Vec<u32>>> {
        let mut rng = step.stream("roll-outs");
        let starts = (0..self.settings.pool).map(|_| below(&mut rng, train.len()));
        let starts: Vec<usize> = starts.collect();
        let mut pool: Vec<Vec<u32>> = Vec::with_capacity(starts.len());
        for starts in starts.chunks(BESIDE) {
            let mut rows = train.batch(starts, None)?.rows().to_vec2::<u32>()?;
            let window = rows[0].len();
            for _ in 0..self.settings.length {
                let last = rows.iter().flat_map(|row| &row[row.len() - window..]);
                let last = Tensor::from_iter(last.copied(), &Device::Cpu)?;
                let batch = Batch::unlabelled(last.reshape((rows.len(), window))?)?;
                let log = predict(&batch)?
                    .to_device(&Device::Cpu)?
                    .to_dtype(DType::F64)?;
                for (row, log) in rows.iter_mut().zip(log.to_vec2::<f64>()?) {
                    row.push(drawn(&log, unit(&mut rng)));
                }
            }
            pool.extend(rows);
        }
        Ok(pool)
    }
}

/// Samples a token with a uniform random number in `[0, 1)`.
fn drawn(log_probabilities: &[f64], uniform: f64) -> u32 {
    let mut left = uniform;
    let found = log_probabilities.iter().position(|log| {
        left -= log.exp();
        left < 0.
    });
    // The last token gets the remainder due to rounding.
    found.unwrap_or(log_probabilities.len().saturating_sub(1)) as u32
}

impl NegativeSampler for Sampler {
    fn views(&self, batch: &Batch, prediction: &Prediction<'_>, step: &Step) -> Result<Views> {
        let (labels, mut rng) = (batch.labels()?, step.stream("negatives"));
        let mut context = batch.rows().clone();
        let beside = |wrong: Vec<u32>| with_wrong(labels, &wrong, batch.device());
        let both = match (self.settings.negatives, &self.pool) {
            (Negatives::Uniform, _) => beside(uniform_wrong(labels, self.vocabulary, &mut rng))?,
            (Negatives::RollOuts, Some(pool)) if pool.is_made()? => {
                let (rolled_out, next) = self.rolled_out(pool, batch, step)?;
                context = Tensor::cat(&[&context, &rolled_out], 0)?;
                beside(next)?
            }
            // Before the first roll-outs there is only the prediction.
            _ => with_predicted_wrong(labels, prediction.log_probabilities()?, &mut rng)?,
        };
        let input = self.input(&context, self.candidates(both), batch.size())?;
        Views::new(input, vec![Role::Positive, Role::Negative])
    }

    fn neutral(&self, batch: &Batch) -> Result<Input> {
        let (rows, width) = (batch.size(), self.vocabulary);
        self.input(batch.rows(), Values::Zeros { rows, width }, rows)
    }

    fn hypotheses(&self, batch: &Batch, candidates: &Tensor) -> Result<Option<Input>> {
        let rows = candidates.flatten_all()?.unsqueeze(1)?;
        let candidates = self.candidates(rows);
        Ok(Some(self.input(batch.rows(), candidates, batch.size())?))
    }

    fn refresh(
        &self,
        train: &dyn Examples,
        predict: &dyn Fn(&Batch) -> Result<Tensor>,
        step: &Step,
    ) -> Result<()> {
        let Some(pool) = &self.pool else {
            return Ok(());
        };
        if pool.is_made()? && !step.epoch.is_multiple_of(self.settings.refresh) {
            return Ok(());
        }
        let rows = self.roll_out(train, predict, step)?;
        let device = pool.tokens.device();
        let tokens = Tensor::new(rows.concat(), &Device::Cpu)?.reshape(pool.tokens.shape())?;
        pool.tokens.set(&tokens.to_device(device)?)?;
        Ok(pool.made.set(&Tensor::new(&[1u32], device)?)?)
    }
}

onward_core::register! {
    dyn NegativeSampler, "next_token",
    "a window of text with the next token, or a wrong one \
     (Hinton 2022, arXiv 2212.13345)",
    |settings: NextToken, context| Ok(Box::new(Sampler::new(settings, context)?)),
    .idle(|own, all| {
        let settings = NextToken::read(own)?;
        let mut idle = settings.contexts.idle(all);
        if settings.negatives != Negatives::RollOuts {
            let because = "only `negatives = roll_outs` uses it";
            idle.extend(Idle::all(&["pool", "length", "refresh"], because));
        }
        Ok(idle)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use onward_core::flow::examples::Augment;
    use onward_core::{Tokenizer, Vars};

    use super::*;

    /// Counts up cyclically, `0 1 2 3 0 1 …`; the network `down` predicts that it counts
    /// down.
    struct Counting;

    impl Examples for Counting {
        fn len(&self) -> usize {
            40
        }

        fn batch(&self, indices: &[usize], _: Option<&Augment<'_>>) -> Result<Batch> {
            let tokens = indices.iter().flat_map(|&i| [i, i + 1, i + 2]);
            let tokens: Vec<u32> = tokens.map(|i| i as u32 % 4).collect();
            let labels = indices.iter().map(|&i| (i + 3) as u32 % 4).collect();
            Batch::new(
                Tensor::from_vec(tokens, (indices.len(), 3), &Device::Cpu)?,
                labels,
            )
        }
    }

    fn down(batch: &Batch) -> Result<Tensor> {
        let last = batch
            .rows()
            .narrow(1, 2, 1)?
            .flatten_all()?
            .to_vec1::<u32>()?;
        let row =
            |last: u32| (0..4).map(move |token| if token == (last + 3) % 4 { 0f32 } else { -1e3 });
        Ok(Tensor::from_iter(last.into_iter().flat_map(row), &Device::Cpu)?.reshape(((), 4))?)
    }

    fn sampler(negatives: Negatives, refresh: usize) -> Result<(Sampler, Vars)> {
        let vars = Vars::new(1, DType::F32, &Device::Cpu);
        let mut context = BuildContext::new(vars.clone(), 1);
        (context.example, context.classes) = (vec![3], 4);
        context.tokenizer = Some(Arc::new(Tokenizer::characters("abcd")?));
        let settings = NextToken {
            negatives,
            pool: 7,
            length: 5,
            refresh,
            ..NextToken::default()
        };
        Ok((Sampler::new(settings, &context)?, vars))
    }

    fn step(epoch: usize) -> Step {
        Step {
            index: epoch as u64,
            epoch,
            train: true,
            ..Step::evaluation(1)
        }
    }

    fn never() -> Prediction<'static> {
        Prediction::new(|| panic!("these negatives need no prediction"))
    }

    #[test]
    fn the_candidate_follows_the_context() -> Result<()> {
        let batch = Counting.batch(&[0, 5], None)?;
        let (sampler, _) = sampler(Negatives::Uniform, 1)?;
        let views = sampler.views(&batch, &never(), &step(0))?;
        let rows = views.input.join()?.to_vec2::<f32>()?;
        let first = [
            1., 0., 0., 0., 0., 1., 0., 0., 0., 0., 1., 0., 0., 0., 0., 3.,
        ];
        assert_eq!(rows[0], first);
        assert_eq!((&rows[2][..12], rows[2][15]), (&first[..12], 0.));
        let neutral = sampler.neutral(&batch)?.join()?.to_vec2::<f32>()?;
        assert_eq!(neutral[1][12..], [0.; 4]);
        Ok(())
    }

    #[test]
    fn roll_outs_are_the_text_that_the_network_generates() -> Result<()> {
        let (sampler, vars) = sampler(Negatives::RollOuts, 1)?;
        sampler.refresh(&Counting, &down, &step(0))?;
        let state = vars.training_state();
        assert!(
            vars.model().is_empty() && state.len() == 2,
            "roll-outs are not part of a model"
        );
        let rows = state[0].1.to_vec2::<u32>()?;
        assert_eq!((rows.len(), rows[0].len()), (7, 8));
        for row in &rows {
            let steps = row.windows(2).map(|pair| (pair[1] + 4 - pair[0]) % 4);
            // Up twice, then down.
            assert_eq!(steps.collect::<Vec<u32>>(), [1, 1, 3, 3, 3, 3, 3]);
        }
        let batch = Counting.batch(&(0..20).collect::<Vec<_>>(), None)?;
        let views = sampler.views(&batch, &never(), &step(0))?;
        let all = views.input.join()?.to_vec2::<f32>()?;
        let token = |row: &[f32], slot: usize| {
            row[4 * slot..4 * slot + 4]
                .iter()
                .position(|x| *x > 0.)
                .unwrap()
        };
        for row in &all[20..] {
            assert_eq!(
                (token(row, 3) + 4 - token(row, 2)) % 4,
                3,
                "negatives count down"
            );
        }
        Ok(())
    }

    #[test]
    fn a_negative_window_is_at_the_drawn_place_of_the_drawn_roll_out() -> Result<()> {
        let (sampler, _) = sampler(Negatives::RollOuts, 1)?;
        sampler.refresh(&Counting, &down, &step(0))?;
        let batch = Counting.batch(&(0..20).collect::<Vec<_>>(), None)?;
        let pool = sampler.pool.as_ref().expect("roll-outs");
        let (contexts, next) = sampler.rolled_out(pool, &batch, &step(3))?;
        let rows = pool.tokens.to_vec2::<u32>()?;
        let mut rng = step(3).stream("negatives");
        for (context, next) in contexts.to_vec2::<u32>()?.iter().zip(next) {
            let row = &rows[below(&mut rng, 7)];
            let start = 1 + below(&mut rng, 4);
            assert_eq!(context, &row[start..start + 3]);
            assert_eq!(next, row[start + 3]);
        }
        Ok(())
    }

    #[test]
    fn roll_outs_are_generated_again_when_they_are_due() -> Result<()> {
        let (sampler, vars) = sampler(Negatives::RollOuts, 2)?;
        let pool = |epoch: usize| -> Result<Vec<Vec<u32>>> {
            sampler.refresh(&Counting, &down, &step(epoch))?;
            Ok(vars.training_state()[0].1.to_vec2()?)
        };
        let first = pool(1)?; // not due, but there are none yet
        assert_eq!(pool(3)?, first);
        assert_ne!(pool(4)?, first);
        Ok(())
    }
}
