//! Sampler `plain`: the examples as they are, for rules that need no negatives.

use onward_core::data::text::hashed::HashedNgrams;
use onward_core::{
    Batch, Error, Input, NegativeSampler, Prediction, Result, Role, Step, Values, Views,
};

onward_core::settings! {
    /// One positive view, the example itself, without a label in the input and without
    /// negatives. Windows of tokens become one-hot slots, with `ngrams` beside slots of
    /// hashed n-grams.
    ///
    /// # Reference
    /// The input of rules with a goodness for each class, such as Mono-Forward
    /// (<https://arxiv.org/abs/2501.09238>), and of backpropagation.
    pub struct Plain {
        .. ngrams: HashedNgrams = HashedNgrams::default();
    }
}

struct Sampler {
    /// The size of the vocabulary, for text.
    tokens: Option<usize>,
    ngrams: HashedNgrams,
}

impl NegativeSampler for Sampler {
    fn views(&self, batch: &Batch, _: &Prediction<'_>, _: &Step) -> Result<Views> {
        Views::new(self.neutral(batch)?, vec![Role::Positive])
    }

    fn uses_labels(&self) -> bool {
        false
    }

    fn neutral(&self, batch: &Batch) -> Result<Input> {
        let Some(tokens) = self.tokens else {
            return Input::of(batch.examples().clone());
        };
        let index = batch.rows().clone();
        let width = index.dim(1)? * tokens + self.ngrams.width();
        let ngrams = self.ngrams.of(&index)?;
        let slots = Values::OneHot {
            index,
            classes: tokens,
            strength: 1.,
        };
        let parts = std::iter::once(slots).chain(ngrams);
        Input::new(parts, batch.size(), 1, &[width])
    }
}

onward_core::register! {
    dyn NegativeSampler, "plain",
    "the examples as they are, no negatives (as in Mono-Forward 2025, arXiv 2501.09238)",
    |settings: Plain, context| {
        let tokens = context.tokenizer.as_ref().map(|_| context.classes);
        let ngrams = settings.ngrams;
        match tokens {
            Some(_) => ngrams.check(context.example.iter().product())?,
            None if ngrams.width() > 0 => {
                let problem = "`ngrams` are of text; remove it, or choose a text data set";
                return Err(Error::unfit("plain", problem));
            }
            None => (),
        }
        Ok(Box::new(Sampler { tokens, ngrams }))
    }
}
