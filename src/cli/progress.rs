//! Progress on stderr: a bar on a terminal, a line per epoch otherwise.

use std::io::IsTerminal;
use std::time::Instant;

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::error::notify;

use crate::contract::block::StepReport;
use crate::run::observe::{Event, Observer};
use crate::run::summary::{Evaluation, Score};

/// What stands beside the bar after the steps of an epoch.
const EVALUATING: &str = "evaluating";

/// Shows a training while it runs.
pub(super) trait Display: Observer {
    /// A line above what changes.
    fn say(&mut self, text: String);
}

/// Shows the rate, the remaining time, the loss, and the goodness of both views in every
/// block.
pub struct Progress {
    bar: Option<ProgressBar>,
    blocks: Vec<String>,
    epochs: usize,
    steps: usize,
    /// For text, the number of tokens of an epoch.
    tokens: Option<usize>,
    /// The steps of this epoch so far.
    taken: usize,
    shown: Instant,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            bar: None,
            blocks: Vec::new(),
            epochs: 0,
            steps: 0,
            tokens: None,
            taken: 0,
            shown: Instant::now(),
        }
    }
}

impl Display for Progress {
    fn say(&mut self, text: String) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => notify(format_args!("{text}")),
        }
    }
}

impl Progress {
    fn units(&self) -> Units {
        match self.tokens {
            Some(tokens) => Units {
                name: "tokens",
                per_step: tokens as f64 / self.steps.max(1) as f64,
            },
            None => Units {
                name: "steps",
                per_step: 1.,
            },
        }
    }

    fn reports(&self, reports: &[(usize, StepReport<f64>)]) -> String {
        let text = |(block, report): &(usize, StepReport<f64>)| {
            let name = self.blocks.get(*block).map_or("?", String::as_str);
            let positive = short(report.positive?);
            let negative = report
                .negative
                .map_or(String::new(), |g| format!("/{}", short(g)));
            Some(format!("{name}: {positive}{negative}"))
        };
        let losses: Vec<f64> = reports
            .iter()
            .filter_map(|(_, report)| report.loss)
            .collect();
        let goodness: Vec<String> = reports.iter().filter_map(text).collect();
        let mut parts = Vec::new();
        if !losses.is_empty() {
            let mean = losses.iter().sum::<f64>() / losses.len() as f64;
            parts.push(format!("loss {}", short(mean)));
        }
        if !goodness.is_empty() {
            parts.push(format!("goodness +/− {}", abridged(&goodness).join("  ")));
        }
        parts.join("  ")
    }
}

impl Observer for Progress {
    fn on(&mut self, event: &Event<'_>) {
        match event {
            Event::Started {
                blocks,
                epoch,
                epochs,
                steps,
                tokens,
                ..
            } => {
                (self.blocks, self.epochs, self.steps) = (blocks.to_vec(), *epochs, *steps);
                self.tokens = *tokens;
                if std::io::stderr().is_terminal() {
                    let bar = ProgressBar::with_draw_target(
                        Some((epochs * steps) as u64),
                        ProgressDrawTarget::stderr_with_hz(8),
                    );
                    let style = ProgressStyle::with_template("{prefix} {wide_bar} {pace}\n{msg}");
                    if let Ok(style) = style {
                        let units = self.units();
                        let pace = move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                            // An error here would only leave out the pace.
                            let _ = match state.len() {
                                Some(steps) if state.pos() >= steps => out.write_str(EVALUATING),
                                _ => {
                                    let rate = units.rate(state.per_sec());
                                    write!(out, "{rate}, {:#} left", HumanDuration(state.eta()))
                                }
                            };
                        };
                        bar.set_style(style.with_key("pace", pace));
                    }
                    bar.set_position((epoch * steps) as u64);
                    bar.reset_eta();
                    // A terminal that cannot move its cursor (TERM=dumb) shows no bar, and
                    // would show none of the lines above it.
                    self.bar = Some(bar).filter(|bar| !bar.is_hidden());
                }
            }
            Event::Stepped { step, reports, .. } => {
                self.taken += 1;
                let Some(bar) = &self.bar else { return };
                bar.set_position(step.index + 1);
                if self.shown.elapsed().as_millis() >= 100 {
                    self.shown = Instant::now();
                    bar.set_prefix(format!("epoch {}/{}", step.epoch + 1, self.epochs));
                    let read =
                        |(block, report): &(usize, StepReport)| Some((*block, report.read().ok()?));
                    let reports: Vec<_> = reports.iter().filter_map(read).collect();
                    bar.set_message(self.reports(&reports));
                }
            }
            Event::EpochEnded {
                epoch,
                epochs,
                seconds,
                reports,
                ..
            } => {
                // Of an epoch that was resumed, only its rest was taken.
                let taken = std::mem::take(&mut self.taken);
                let rate = self.units().rate(taken as f64 / seconds.max(1e-9));
                let line = format!(
                    "epoch {epoch}/{epochs}  {seconds:.2} s  {rate}  {}",
                    self.reports(reports)
                );
                self.say(line.trim_end().to_string());
                // After the last one, it stands in the place of the pace.
                if let Some(bar) = &self.bar {
                    bar.set_message(if epoch < epochs { EVALUATING } else { "" });
                }
            }
            Event::Evaluated {
                split, evaluation, ..
            } => {
                self.say(format!("  {}: {}", split.word(), readouts(evaluation)));
            }
            Event::EndsEarly {
                epoch,
                epochs,
                best,
            } => self.say(format!(
                "ends after epoch {epoch} of {epochs}: no better validation than after epoch {best}"
            )),
            Event::Finished { .. } => {
                if let Some(bar) = self.bar.take() {
                    bar.finish_and_clear();
                }
            }
            Event::Saved { .. } => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        // Of a run that was stopped, the bar is still there.
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// The first two and the last of many blocks, for a line of about 80 columns.
fn abridged(blocks: &[String]) -> Vec<String> {
    match blocks {
        [first, second, _, .., last] if blocks.len() > 3 => {
            vec![first.clone(), second.clone(), "…".into(), last.clone()]
        }
        few => few.to_vec(),
    }
}

/// What a rate counts: tokens of text, otherwise steps.
#[derive(Clone, Copy)]
struct Units {
    name: &'static str,
    /// The mean number of them in a step.
    per_step: f64,
}

impl Units {
    /// A rate for people, `812 steps/s`.
    fn rate(self, steps_per_second: f64) -> String {
        format!("{:.0} {}/s", self.per_step * steps_per_second, self.name)
    }
}

/// Formats a number with about four digits: a mean of squares is near 1, a sum of squares
/// near the number of units.
pub(super) fn short(value: f64) -> String {
    if value.abs() >= 1e6 {
        return format!("{value:.2e}");
    }
    let decimals = match value.abs() {
        size if size < 10. => 3,
        size if size < 100. => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

/// Formats the scores of all readouts: `error 1.52% (search), 1.61% (head)`, or for text
/// `bits/char 2.546 (head), error 51.20% (head)`.
pub(crate) fn readouts(evaluation: &Evaluation) -> String {
    let text = |(name, score): (&String, &Score)| format!("{:.2}% ({name})", 100. * score.error);
    let error = format!(
        "error {}",
        evaluation
            .readouts
            .iter()
            .map(text)
            .collect::<Vec<_>>()
            .join(", ")
    );
    let all = evaluation.readouts.iter().chain(&evaluation.baselines);
    let bits =
        all.filter_map(|(name, score)| Some(format!("{:.3} ({name})", score.bits?.bits_per_char)));
    match bits.collect::<Vec<_>>() {
        none if none.is_empty() => error,
        bits => format!("bits/char {}, {error}", bits.join(", ")),
    }
}
