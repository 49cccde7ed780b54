//! The parts of a network.

use std::ops::Range;

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

    /// Whether it has begun to learn after so many epochs.
    pub(crate) fn has_begun(&self, epochs: usize) -> bool {
        self.from_epoch == 0 || epochs > self.from_epoch
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

    /// Whether a block learns in the epoch that ends with this step.
    pub(crate) fn learns_in_epoch_of(&self, last: &Step) -> bool {
        let mut spans = self.blocks.iter().map(Block::span);
        // Without blocks, nothing is known of what learns.
        self.blocks.is_empty() || spans.any(|span| span.meets_epoch_of(last))
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
                       labels: they would read it off; choose a sampler that does not (--set \
                       sampler=plain), or a loss that compares views, such as logistic";
        Err(Error::unfit("sampler", problem))
    }

    /// Refuses layers in closed form that are not solved for in time. For architectures
    /// in which each block has the activity of the last one as its input; the heads
    /// read the blocks `read`.
    ///
    /// The activity of such a layer changes at the end of an epoch. So the layers that
    /// are solved for have to learn one after the other, and what reads one has to
    /// learn in an epoch after its first solution.
    ///
    /// # Errors
    /// [`Error::Unfit`] for such layers.
    pub fn check_solved(&self, read: Range<usize>) -> Result<()> {
        self.check_solved_in_turn()?;
        for (index, block) in self.blocks.iter().enumerate() {
            if !block.has_solved_layer() || block.span().is_empty() {
                continue;
            }
            if let Some(late) = self.learns_too_early(index, &read) {
                let problem = format!(
                    "layer {} is solved for at the end of its first epoch, and {late}",
                    block.name()
                );
                return Err(Error::unfit("stacked layers", problem));
            }
        }
        Ok(())
    }

    /// What learns from the random activity of a layer in closed form alone, and what
    /// to do.
    fn learns_too_early(&self, index: usize, read: &Range<usize>) -> Option<String> {
        let solved = &self.blocks[index];
        let first = solved.span();
        let is_early = |span: &Span| !span.is_empty() && span.ends_with_first_epoch_of(first);
        if solved.goodness_learns() == Some(true) && is_early(first) {
            let early = "its goodness does not learn after that: it would know the random \
                         activity alone; train for more epochs (`epochs = 2`)";
            return Some(early.into());
        }
        let mut above = self.blocks[index + 1..].iter();
        if let Some(above) = above.find(|above| is_early(above.span())) {
            let early = format!(
                "layer {} does not learn after that: it would know its random activity alone; \
                 let the layers learn one after the other (`order = \"greedy\"`), or train for \
                 more epochs",
                above.name()
            );
            return Some(early);
        }
        let mut heads = self.heads.iter().map(|head| head.optimiser().span());
        if index < read.end && heads.any(is_early) {
            let early = "the head does not learn after that: it would know the random activity \
                         alone; let the head learn after the layers (`probe_epochs = 1`), or \
                         train for more epochs";
            return Some(early.into());
        }
        None
    }

    fn check_solved_in_turn(&self) -> Result<()> {
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
        self.epoch_ended_of(0..self.blocks.len(), true, step)
    }

    /// The same for some blocks, and for the heads or not.
    pub(crate) fn epoch_ended_of(
        &mut self,
        blocks: Range<usize>,
        heads: bool,
        step: &Step,
    ) -> Result<()> {
        let blocks = self.blocks[blocks].iter_mut();
        for block in blocks.filter(|block| block.span().meets_epoch_of(step)) {
            block.epoch_ended(step)?;
        }
        let heads = self.heads.iter_mut().filter(|_| heads);
        for head in heads.filter(|head| head.optimiser().span().meets_epoch_of(step)) {
            head.epoch_ended()?;
        }
        Ok(())
    }
}
