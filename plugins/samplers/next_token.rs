//! Sampler `next_token`: the context, and a candidate for what follows it.

use std::collections::{BTreeMap, HashMap};

use onward_core::candle_core::{DType, Device, Tensor};
use onward_core::contract::sampler::{predicted_wrong, uniform_wrong};
use onward_core::data::Examples;
use onward_core::flow::random::{below, unit};
use onward_core::{
    Batch, BuildContext, Error, Input, NegativeSampler, Result, Role, Step, Values, Views,
};

onward_core::choices! {
    /// How the wrong token of a negative view is chosen.
    pub enum Negatives {
        /// In proportion to the network's own probability of each wrong token.
        Predicted = "predicted",
        /// All wrong tokens alike.
        Uniform = "uniform",
        /// No wrong token behind a real context, but windows of text that the network itself went on with.
        RollOuts = "roll_outs",
    }
}

onward_core::settings! {
    /// A window of `K` tokens and a candidate for the next one, each a one-hot slot as wide as the vocabulary `V`: `[K·V
    /// context | V candidate]`. The token that follows makes the positive view, a wrong one the negative view, an empty
    /// slot the neutral one.
    ///
    /// The context is one part for all views and candidates; rows of the weight are picked, nothing is multiplied.
    ///
    /// With `roll_outs` the network goes on from `pool` random windows of the training part, `length` tokens each, drawn
    /// from its own probabilities; a negative view is a random window of that, with the token that the network drew
    /// next. The pool is made anew before every `refresh`-th epoch, and is part of a checkpoint.
    ///
    /// # Reference
    /// Hinton, "The Forward-Forward Algorithm", 2022 (<https://arxiv.org/abs/2212.13345>): negatives with a
    /// last character that the network predicts, or made offline by letting it go on.
    pub struct NextToken {
        /// How the wrong token of a negative view is chosen: never the true one, but for `roll_outs`, which may by chance be
        /// as the text is.
        negatives: Negatives = Negatives::Predicted;
        /// The value of the candidate's entry, where those of the context are 1.
        strength: f64 = 3., in f64::MIN_POSITIVE..;
        /// Of roll-outs: how many are made.
        pool: usize = 1000, in 1..=1_000_000;
        /// Of roll-outs: how many tokens each goes on for.
        length: usize = 50, in 1..=10_000;
        /// Of roll-outs: epochs between two times that they are made.
        refresh: usize = 1, in 1..;
    }
}

struct Sampler {
    settings: NextToken,
    vocabulary: usize,
    /// Roll-outs, each after the window that it began with, `(pool, K + length)`.
    pool: Option<Tensor>,
}

const POOL: &str = "pool";
/// Roll-outs that go on side by side.
const BESIDE: usize = 500;

impl Sampler {
    fn new(settings: NextToken, context: &BuildContext) -> Result<Self> {
        if context.tokenizer.is_none() {
            let problem =
                "it makes views of text; choose data of text, or another `sampler`".to_string();
            return Err(Error::Mismatch {
                place: "next_token".into(),
                problem,
            });
        }
        Ok(Self {
            settings,
            vocabulary: context.classes,
            pool: None,
        })
    }

    /// `[context | candidate]`, rows of both for every view, or of the context for all of them.
    fn input(
        &self,
        context: Tensor,
        candidates: Tensor,
        strength: f64,
        batch: usize,
    ) -> Result<Input> {
        let width = (context.dim(1)? + 1) * self.vocabulary;
        let views = candidates.dim(0)? / batch;
        let context = Values::OneHot {
            index: context,
            classes: self.vocabulary,
            strength: 1.,
        };
        let candidate = Values::OneHot {
            index: candidates,
            classes: self.vocabulary,
            strength,
        };
        Input::new(vec![context, candidate], batch, views, &[width])
    }

    /// Windows of the pool, with the token after each: as many as the batch has examples.
    fn rolled_out(&self, pool: &Tensor, batch: &Batch, step: &Step) -> Result<(Tensor, Vec<u32>)> {
        let (window, rows) = (
            batch.rows().dim(1)?,
            pool.to_device(&Device::Cpu)?.to_vec2::<u32>()?,
        );
        if pool.dim(1)? <= window {
            let (found, expected) = (
                pool.dims().to_vec(),
                format!("rows of more than {window} tokens"),
            );
            return Err(Error::Shape {
                place: "roll-outs".into(),
                found,
                expected,
            });
        }
        let mut rng = step.stream("negatives");
        let (mut contexts, mut next) = (
            Vec::with_capacity(window * batch.size()),
            Vec::with_capacity(batch.size()),
        );
        for _ in 0..batch.size() {
            let row = &rows[below(&mut rng, rows.len())];
            // The first window is real, and so may be what was drawn after it.
            let start = match row.len() - window {
                1 => 0,
                more => 1 + below(&mut rng, more - 1),
            };
            contexts.extend_from_slice(&row[start..start + window]);
            next.push(row[start + window]);
        }
        Ok((
            Tensor::from_vec(contexts, (batch.size(), window), batch.device())?,
            next,
        ))
    }
}

impl NegativeSampler for Sampler {
    fn views(
        &mut self,
        batch: &Batch,
        predict: &mut dyn FnMut() -> Result<Tensor>,
        step: &Step,
    ) -> Result<Views> {
        let labels = batch.labels()?;
        let mut context = batch.rows().clone();
        let wrong = match (self.settings.negatives, &self.pool) {
            (Negatives::Uniform, _) => {
                uniform_wrong(labels, self.vocabulary, &mut step.stream("negatives"))
            }
            (Negatives::RollOuts, Some(pool)) => {
                let (rolled_out, next) = self.rolled_out(pool, batch, step)?;
                context = Tensor::cat(&[&context, &rolled_out], 0)?;
                next
            }
            // Before the first roll-outs are made there is only the prediction.
            _ => predicted_wrong(labels, &predict()?, &mut step.stream("negatives"))?,
        };
        let both = Tensor::from_vec(
            [labels, &wrong].concat(),
            (2 * labels.len(), 1),
            batch.device(),
        )?;
        let input = self.input(context, both, self.settings.strength, batch.size())?;
        Views::new(
            input,
            vec![Role::Positive, Role::Negative],
            Some(labels.to_vec()),
        )
    }

    fn neutral(&self, batch: &Batch) -> Result<Input> {
        let empty = Tensor::zeros((batch.size(), 1), DType::U32, batch.device())?;
        self.input(batch.rows().clone(), empty, 0., batch.size())
    }

    fn hypotheses(&self, batch: &Batch, candidates: &Tensor) -> Result<Option<Input>> {
        let rows = candidates.flatten_all()?.unsqueeze(1)?;
        Ok(Some(self.input(
            batch.rows().clone(),
            rows,
            self.settings.strength,
            batch.size(),
        )?))
    }

    fn refresh(
        &self,
        train: &dyn Examples,
        predict: &dyn Fn(&Batch) -> Result<Tensor>,
        step: &Step,
    ) -> Result<Option<HashMap<String, Tensor>>> {
        let due = self.pool.is_none() || step.epoch.is_multiple_of(self.settings.refresh);
        if self.settings.negatives != Negatives::RollOuts || !due {
            return Ok(None);
        }
        let mut rng = step.stream("roll-outs");
        let starts: Vec<usize> = (0..self.settings.pool)
            .map(|_| below(&mut rng, train.len()))
            .collect();
        let mut pool: Vec<Vec<u32>> = Vec::with_capacity(starts.len());
        for starts in starts.chunks(BESIDE) {
            let mut rows = train.batch(starts, None)?.rows().to_vec2::<u32>()?;
            let window = rows[0].len();
            for _ in 0..self.settings.length {
                let last: Vec<u32> = rows
                    .iter()
                    .flat_map(|row| &row[row.len() - window..])
                    .copied()
                    .collect();
                let batch =
                    Batch::unlabelled(Tensor::from_vec(last, (rows.len(), window), &Device::Cpu)?)?;
                let log = predict(&batch)?
                    .to_device(&Device::Cpu)?
                    .to_dtype(DType::F64)?
                    .to_vec2::<f64>()?;
                for (row, log) in rows.iter_mut().zip(log) {
                    row.push(drawn(&log, unit(&mut rng)));
                }
            }
            pool.extend(rows);
        }
        let (count, width) = (pool.len(), pool[0].len());
        let pool = Tensor::from_vec(pool.concat(), (count, width), &Device::Cpu)?;
        Ok(Some(HashMap::from([(POOL.to_string(), pool)])))
    }

    fn save(&self) -> BTreeMap<String, Tensor> {
        self.pool
            .iter()
            .map(|pool| (POOL.to_string(), pool.clone()))
            .collect()
    }

    fn restore(&mut self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        let Some(pool) = tensors.get(POOL) else {
            return Ok(());
        };
        let largest = pool
            .to_dtype(DType::U32)?
            .flatten_all()?
            .max(0)?
            .to_scalar::<u32>()?;
        if pool.rank() != 2 || largest as usize >= self.vocabulary {
            let (found, expected) = (
                pool.dims().to_vec(),
                format!("rows of tokens below {}", self.vocabulary),
            );
            return Err(Error::Shape {
                place: "roll-outs".into(),
                found,
                expected,
            });
        }
        self.pool = Some(pool.to_dtype(DType::U32)?);
        Ok(())
    }
}

/// The token that `uniform`, in `[0, 1)`, falls on.
fn drawn(log_probabilities: &[f64], uniform: f64) -> u32 {
    let mut left = uniform;
    let found = log_probabilities.iter().position(|log| {
        left -= log.exp();
        left < 0.
    });
    // What rounding leaves over goes to the last token.
    found.unwrap_or(log_probabilities.len().saturating_sub(1)) as u32
}

onward_core::register! {
    dyn NegativeSampler, "next_token", "a window of text and the token after it, or a wrong one (Hinton 2022, arXiv 2212.13345)",
    |settings: NextToken, context| Ok(Box::new(Sampler::new(settings, context)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts up and begins again, `0 1 2 3 0 1 …`; the network below is sure that it counts down.
    struct Counting;

    impl Examples for Counting {
        fn len(&self) -> usize {
            40
        }

        fn batch(
            &self,
            indices: &[usize],
            _: Option<&onward_core::data::Augment<'_>>,
        ) -> Result<Batch> {
            let tokens: Vec<u32> = indices
                .iter()
                .flat_map(|&i| [i, i + 1, i + 2])
                .map(|i| i as u32 % 4)
                .collect();
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

    fn sampler(negatives: Negatives) -> Sampler {
        let settings = NextToken {
            negatives,
            pool: 7,
            length: 5,
            ..NextToken::default()
        };
        Sampler {
            settings,
            vocabulary: 4,
            pool: None,
        }
    }

    fn step(epoch: usize) -> Step {
        Step {
            seed: 1,
            index: epoch as u64,
            epoch,
            epochs: 9,
            train: true,
            pass: 0,
        }
    }

    #[test]
    fn the_candidate_stands_behind_the_context() -> Result<()> {
        let batch = Counting.batch(&[0, 5], None)?;
        let views = sampler(Negatives::Uniform).views(&batch, &mut || unreachable!(), &step(0))?;
        let rows = views.input.join()?.to_vec2::<f32>()?;
        assert_eq!(
            rows[0],
            [1., 0., 0., 0., 0., 1., 0., 0., 0., 0., 1., 0., 0., 0., 0., 3.]
        );
        assert_eq!(
            (rows[2][..12].to_vec(), rows[2][15]),
            (rows[0][..12].to_vec(), 0.)
        );
        let neutral = sampler(Negatives::Uniform)
            .neutral(&batch)?
            .join()?
            .to_vec2::<f32>()?;
        assert_eq!(neutral[1][12..], [0.; 4]);
        Ok(())
    }

    #[test]
    fn roll_outs_are_what_the_network_goes_on_with() -> Result<()> {
        let mut sampler = sampler(Negatives::RollOuts);
        let made = sampler
            .refresh(&Counting, &down, &step(0))?
            .expect("there are none yet");
        let rows = made[POOL].to_vec2::<u32>()?;
        assert_eq!((rows.len(), rows[0].len()), (7, 8));
        for row in &rows {
            let steps: Vec<u32> = row
                .windows(2)
                .map(|pair| (pair[1] + 4 - pair[0]) % 4)
                .collect();
            assert_eq!(steps, [1, 1, 3, 3, 3, 3, 3]); // up twice, then down
        }
        sampler.restore(&made)?;
        let batch = Counting.batch(&(0..20).collect::<Vec<_>>(), None)?;
        let views = sampler.views(&batch, &mut || unreachable!(), &step(0))?;
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
                "a negative goes on downwards"
            );
        }
        assert_eq!(sampler.save()[POOL].to_vec2::<u32>()?, rows);
        sampler.settings.refresh = 2;
        assert!(sampler.refresh(&Counting, &down, &step(1))?.is_none());
        assert!(sampler.refresh(&Counting, &down, &step(2))?.is_some());
        Ok(())
    }
}
