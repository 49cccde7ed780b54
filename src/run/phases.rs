//! Phases of a training: what learns in which epochs.

use std::sync::Arc;

use super::checkpoint::Header;
use super::embedded::of_header;
use super::{settings, Run};
use crate::data::text::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::optim::Span;
use crate::plugin::config::Config;

/// The epochs of the blocks and heads of a run before some of its settings were changed.
pub(super) struct Phases {
    epochs: Vec<(String, Span)>,
    changed: Vec<settings::Difference>,
}

impl Phases {
    /// Those of a checkpoint; `None` if its settings are the same.
    pub fn before(
        header: &Header,
        now: &Config,
        tokenizer: Option<Arc<Tokenizer>>,
    ) -> Option<Self> {
        let settings = header.settings.as_ref()?;
        let before = settings::completed(&header.architecture, settings).ok()?;
        let changed = settings::differences(&before, &settings::of(now));
        if changed.is_empty() || header.epoch == 0 {
            return None;
        }
        let epochs = of(&of_header(header, tokenizer).ok()?);
        Some(Self { epochs, changed })
    }

    /// Refuses settings under which a block would have learned in other epochs than it has
    /// until now: nothing would make up for the difference.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn check(&self, now: &Run, epoch: usize) -> Result<()> {
        let until_now = |span: &Span| match span {
            Span::Epochs(epochs) => epochs.start.min(epoch)..epochs.end.min(epoch),
            Span::Steps(_) => 0..0,
        };
        let now = of(now);
        let is_later =
            |(_, span): &(String, Span)| matches!(span, Span::Epochs(epochs) if epochs.start > 0);
        if !self.epochs.iter().chain(&now).any(is_later) {
            return Ok(());
        }
        let mut both = self.epochs.iter().zip(&now);
        let other = both.find(|(before, now)| {
            let [before, now] = [before, now].map(|(_, span)| until_now(span));
            before != now && !(before.is_empty() && now.is_empty())
        });
        let by_epochs = |change: &&settings::Difference| change.0 != "epochs";
        let change = self.changed.iter().min_by_key(by_epochs);
        let (Some(((name, before), _)), Some((key, was, value))) = (other, change) else {
            return Ok(());
        };
        let learned = match until_now(before).len() {
            0 => "has not learned yet".to_string(),
            1 => "has learned for 1 epoch".to_string(),
            epochs => format!("has learned for {epochs} epochs"),
        };
        let expected = format!(
            "{was}: {name} {learned}, and with {value} would have learned in other epochs; start \
             a new run"
        );
        Err(Error::refused(key, value, expected))
    }
}

impl Run {
    /// What learns in which epochs, if not all of it learns from the first one on:
    /// `epochs 1–2 layer 1, 3–4 layer 2`.
    pub(crate) fn phases(&self) -> Option<String> {
        let mut phases: Vec<(Span, Vec<String>)> = Vec::new();
        for (name, span) in of(self).into_iter().filter(|(_, span)| !span.is_empty()) {
            match phases.iter_mut().find(|(known, _)| *known == span) {
                Some((_, names)) => names.push(name),
                None => phases.push((span, vec![name])),
            }
        }
        if phases.len() < 2 {
            return None;
        }
        let words = phases.iter().map(|(span, names)| {
            let names = match &names[..] {
                [first, .., last] if first.starts_with("layer") && last.starts_with("layer") => {
                    format!("{first} to {}", last.trim_start_matches("layer "))
                }
                names => names.join(" and "),
            };
            match span {
                Span::Epochs(epochs) if epochs.len() == 1 => format!("{} {names}", epochs.end),
                Span::Epochs(epochs) => format!("{}–{} {names}", epochs.start + 1, epochs.end),
                Span::Steps(steps) => format!("steps {}–{} {names}", steps.start, steps.end),
            }
        });
        Some(format!("epochs {}", words.collect::<Vec<_>>().join(", ")))
    }
}

/// The epochs of the blocks and heads of a run.
fn of(run: &Run) -> Vec<(String, Span)> {
    let net = run.architecture.net();
    let blocks = net.blocks.iter();
    let blocks = blocks.map(|block| (format!("layer {}", block.name()), block.span().clone()));
    let heads = net.heads.iter().map(|head| {
        let span = head.optimiser().span().clone();
        ("the head".to_string(), span)
    });
    blocks.chain(heads).collect()
}
