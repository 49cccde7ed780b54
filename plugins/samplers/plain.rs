//! Sampler `plain`: the examples as they are, for rules that need no negatives.

use onward_core::data::text::hashed::{ContextHasher, HashedContexts};
use onward_core::flow::input::HASHED;
use onward_core::settings::Settings;
use onward_core::{
    Batch, Error, Input, NegativeSampler, Prediction, Result, Role, Step, Values, Views,
};

onward_core::settings! {
    /// One positive view, the example itself, without a label in the input and without
    /// negatives. Windows of tokens become one-hot slots, with `ngrams` or `words`
    /// beside slots of hashed ends of the window.
    ///
    /// # Reference
    /// The input of rules with a goodness for each class, such as Mono-Forward
    /// (<https://arxiv.org/abs/2501.09238>), and of backpropagation.
    pub struct Plain {
        .. contexts: HashedContexts = HashedContexts::default();
    }
}

struct Sampler {
    /// The size of the vocabulary, for text.
    tokens: Option<usize>,
    hasher: Option<ContextHasher>,
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
        let hasher = self.hasher.as_ref();
        let width = index.dim(1)? * tokens + hasher.map_or(0, ContextHasher::width);
        let hashed = hasher.map(|hasher| hasher.of(&index)).transpose()?;
        let slots = Values::OneHot {
            index,
            classes: tokens,
            strength: 1.,
        };
        let hashed = hashed.flatten().map(|hashed| hashed.named(HASHED));
        let parts = std::iter::once(slots.into()).chain(hashed);
        Input::new(parts, batch.size(), 1, &[width])
    }
}

onward_core::register! {
    dyn NegativeSampler, "plain",
    "the examples as they are, no negatives (as in Mono-Forward 2025, arXiv 2501.09238)",
    |settings: Plain, context| {
        let window = context.example.iter().product();
        let hasher = context.tokenizer.as_ref();
        let hasher = hasher.map(|tokenizer| {
            ContextHasher::new(&settings.contexts, tokenizer, window)
        });
        if hasher.is_none() && !settings.contexts.is_empty() {
            let problem = "`ngrams` and `words` are of text; remove them, or choose a text data \
                           set";
            return Err(Error::unfit("plain", problem));
        }
        Ok(Box::new(Sampler {
            tokens: context.tokenizer.as_ref().map(|_| context.classes),
            hasher: hasher.transpose()?,
        }))
    },
    .idle(|own, _| Ok(Plain::read(own)?.contexts.idle()))
}
