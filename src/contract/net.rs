//! The parts of a network.

use crate::contract::block::Block;
use crate::contract::build_context::BuildContext;
use crate::contract::head::Head;
use crate::contract::rule::Rule;
use crate::error::{Error, Result};
use crate::flow::step::Step;
use crate::optim::Span;

/// A way of computing a prediction from a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readout {
    /// Its name in reports: `search`, `head`, `goodness`.
    pub name: &'static str,
    /// Whether it is cheap enough to be used after every epoch; the others are used at
    /// the end.
    pub cheap: bool,
    /// Whether its scores are log-probabilities (natural logarithms). They then count
    /// in bits and can be sampled from.
    pub log_probabilities: bool,
    /// The number of epochs after which it can first be used; 0 for a readout that
    /// learns from the start.
    pub from_epoch: usize,
}

impl Readout {
    /// A readout that means something from the start, is not cheap, and whose scores
    /// are not probabilities.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            cheap: false,
            log_probabilities: false,
            from_epoch: 0,
        }
    }

    /// The one of `readouts` with this name.
    pub(crate) fn named<'a>(name: &str, readouts: &'a [Self]) -> Result<&'a Self> {
        let found = readouts.iter().find(|readout| readout.name == name);
        found.ok_or_else(|| {
            let names: Vec<_> = readouts.iter().map(|readout| readout.name).collect();
            let problem = format!("expected one of {}, found {name:?}", names.join(", "));
            Error::usage("readout", problem)
        })
    }

    /// The same, used after every epoch.
    pub fn cheap(self) -> Self {
        Self {
            cheap: true,
            ..self
        }
    }

    /// The same, with scores that are log-probabilities.
    pub fn with_log_probabilities(self) -> Self {
        Self {
            log_probabilities: true,
            ..self
        }
    }
}

/// The parts of a network: what learns, and what can be read out.
#[derive(Default)]
pub struct Net {
    /// The blocks, from the input on.
    pub blocks: Vec<Block>,
    /// Readouts that are trained on activities. They never change a block.
    pub heads: Vec<Head>,
    /// What can be read out, the preferred one first.
    pub readouts: Vec<Readout>,
}

impl Net {
    /// The number of epochs of a training: up to the end of the last span of a block or
    /// head.
    pub fn epochs(&self, steps_per_epoch: usize) -> usize {
        let last = self.spans().map(|span| span.last_epoch(steps_per_epoch));
        last.max().unwrap_or(0)
    }

    fn spans(&self) -> impl Iterator<Item = &Span> {
        let heads = self.heads.iter().map(|head| head.optimiser().span());
        self.blocks.iter().map(Block::span).chain(heads)
    }

    /// The number of complete epochs when the last block or head begins to learn.
    pub(crate) fn all_begun(&self, steps_per_epoch: usize) -> usize {
        let learning = self.spans().filter(|span| !span.is_empty());
        let first = learning.map(|span| span.first_epoch(steps_per_epoch));
        first.max().unwrap_or(0)
    }

    /// Whether a block looks at labels while it learns.
    pub fn uses_labels(&self) -> bool {
        let mut learning = self.blocks.iter().filter(|block| !block.span().is_empty());
        learning.any(Block::uses_labels)
    }

    /// Refuses a label in the input of blocks that learn from labels: they would read it
    /// off the positive view. For architectures whose blocks see the views of the sampler
    /// that `context` describes.
    ///
    /// # Errors
    /// [`Error::Unfit`] for such blocks.
    pub fn check_label(&self, context: &BuildContext) -> Result<()> {
        if context.label == 0 || !self.uses_labels() {
            return Ok(());
        }
        let problem = "the sampler puts the label into the input of blocks that learn from \
                       labels: they would read it off; choose a sampler that does not: --set \
                       sampler=plain";
        Err(Error::unfit("sampler", problem))
    }

    /// Refuses layers that are solved for in the same epochs, if each has the activity of
    /// the last one as its input: it changes when the layer below is solved.
    pub(crate) fn check_solved(&self) -> Result<()> {
        let solved = self.blocks.iter().filter(|block| block.has_solved_layer());
        let solved: Vec<&Block> = solved.collect();
        let overlap = |pair: &&[&Block]| pair[0].span().overlaps(pair[1].span());
        let Some(pair) = solved.windows(2).find(overlap) else {
            return Ok(());
        };
        let [below, above] = [pair[0], pair[1]].map(Block::name);
        let problem = format!(
            "layers {below} and {above} are solved for at the end of the same epochs, but the \
             input of layer {above} changes when layer {below} is solved; let them learn one \
             after the other (order = \"greedy\")"
        );
        Err(Error::unfit("stacked layers", problem))
    }

    /// The class of the rule of the first block that learns.
    pub fn rule(&self) -> Rule {
        let mut rules = self.blocks.iter().map(Block::rule);
        rules
            .find(|rule| *rule != Rule::Frozen)
            .unwrap_or(Rule::Frozen)
    }

    /// The readout with this name.
    ///
    /// # Errors
    /// [`Error::Usage`] with the names of those there are.
    pub fn readout(&self, name: &str) -> Result<&Readout> {
        Readout::named(name, &self.readouts)
    }

    /// Tells every block and head that learned in an epoch that it has ended with this
    /// step.
    ///
    /// # Errors
    /// Errors of a block or head.
    pub fn epoch_ended(&mut self, step: &Step) -> Result<()> {
        let blocks = self.blocks.iter_mut();
        for block in blocks.filter(|block| block.span().meets_epoch_of(step)) {
            block.epoch_ended(step)?;
        }
        let heads = self.heads.iter_mut();
        for head in heads.filter(|head| head.optimiser().span().meets_epoch_of(step)) {
            head.epoch_ended()?;
        }
        Ok(())
    }
}
