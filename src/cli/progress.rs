//! Progress on stderr: a bar on a terminal, a line per epoch otherwise.

use std::io::IsTerminal;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::contract::block::Report;
use crate::run::observe::{Event, Observer};
use crate::run::summary::{Evaluation, Score};

/// Rate, time left, loss, and the goodness of both views in every block.
pub struct Progress {
    bar: Option<ProgressBar>,
    blocks: Vec<String>,
    epochs: usize,
    steps: usize,
    shown: Instant,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            bar: None,
            blocks: Vec::new(),
            epochs: 0,
            steps: 0,
            shown: Instant::now(),
        }
    }
}

impl Progress {
    fn line(&self, text: String) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }

    fn reports(&self, reports: &[(usize, Report)]) -> String {
        let text = |(block, report): &(usize, Report)| {
            let name = self.blocks.get(*block).map_or("?", String::as_str);
            match report.negative {
                Some(negative) => format!("{name}: {}/{}", short(report.positive), short(negative)),
                None => format!("{name}: {}", short(report.positive)),
            }
        };
        if reports.is_empty() {
            // A probe learns, or nothing does.
            return String::new();
        }
        let loss: f64 = reports.iter().map(|(_, report)| report.loss).sum();
        format!(
            "loss {loss:.4}  goodness +/− {}",
            reports.iter().map(text).collect::<Vec<_>>().join("  ")
        )
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
                ..
            } => {
                (self.blocks, self.epochs, self.steps) = (blocks.to_vec(), *epochs, *steps);
                if std::io::stderr().is_terminal() {
                    let bar = ProgressBar::with_draw_target(
                        Some((epochs * steps) as u64),
                        ProgressDrawTarget::stderr_with_hz(8),
                    );
                    let style = ProgressStyle::with_template(
                        "{prefix} {wide_bar} {per_sec} {eta} left\n{msg}",
                    );
                    if let Ok(style) = style {
                        bar.set_style(style);
                    }
                    bar.set_position((epoch * steps) as u64);
                    bar.reset_eta();
                    self.bar = Some(bar);
                }
            }
            Event::Stepped { step, reports, .. } => {
                let Some(bar) = &self.bar else { return };
                bar.inc(1);
                if self.shown.elapsed().as_millis() >= 100 {
                    self.shown = Instant::now();
                    bar.set_prefix(format!("epoch {}/{}", step.epoch + 1, self.epochs));
                    bar.set_message(self.reports(reports));
                }
            }
            Event::EpochEnded {
                epoch,
                epochs,
                seconds,
                reports,
            } => {
                let rate = self.steps as f64 / seconds.max(1e-9);
                let line = format!(
                    "epoch {epoch}/{epochs}  {seconds:.2} s  {rate:.0} steps/s  {}",
                    self.reports(reports)
                );
                self.line(line.trim_end().to_string());
            }
            Event::Evaluated {
                split, evaluation, ..
            } => {
                let split = format!("{split:?}").to_lowercase();
                self.line(format!("  {split}: {}", readouts(evaluation)));
            }
            Event::Finished { .. } => {
                if let Some(bar) = self.bar.take() {
                    bar.finish_and_clear();
                }
            }
            Event::Saved { .. } => {}
        }
    }
}

/// About four digits, whatever the size: a mean of squares is near 1, a sum near the number of units.
fn short(value: f64) -> String {
    let decimals = match value.abs() {
        size if size < 10. => 3,
        size if size < 100. => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

/// `error 1.52% (search), 1.61% (head)`; of text `bits/char 2.546 (head), error 51.20% (head)`.
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
