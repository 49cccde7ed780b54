//! `onward predict`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::flags::{open_to_predict, preferred_readout, Device, ReadoutName};
use super::output::{print, print_json};
use crate::error::{notify, Located, Result};

#[derive(Args)]
pub(super) struct Predict {
    /// Folder of a run.
    run: PathBuf,
    /// Images of any size, grey or colour; digits may be dark on light or light on dark.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    readout: ReadoutName,
    /// Print JSON, with the score of every class.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: Device,
}

/// The scores of the classes for an image.
struct Answer<'a> {
    file: &'a PathBuf,
    scores: Vec<f64>,
}

impl Predict {
    pub(super) fn run(self) -> Result<()> {
        let run = open_to_predict(&self.run, &self.device)?;
        let readouts = &run.architecture().net().readouts;
        let first = || readouts.first().map(|readout| readout.name.to_string());
        let readout = self.readout.readout.clone();
        let readout = readout
            .or_else(|| preferred_readout(&self.run, &run))
            .or_else(first);
        let readout = readout.unwrap_or_default();
        let (mut answers, mut failed) = (Vec::new(), None);
        for file in &self.files {
            match run.predict(&[file], &readout) {
                Ok(mut scores) => answers.push(Answer {
                    file,
                    scores: scores.remove(0),
                }),
                // The remaining images are still classified.
                Err(error) if self.files.len() > 1 && !error.is_usage() => {
                    notify(format_args!("error: {error}"));
                    failed = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        let classes = &run.data().spec.classes;
        let is_log = run
            .architecture()
            .net()
            .readout(&readout)?
            .log_probabilities;
        if self.json {
            let answers: Vec<_> = answers
                .iter()
                .map(|answer| answer.json(classes, &readout))
                .collect();
            print_json(&answers)?;
        } else {
            print(
                &answers
                    .iter()
                    .map(|answer| answer.line(classes, &readout, is_log))
                    .collect::<String>(),
            )?;
        }
        let Some(error) = failed else { return Ok(()) };
        let (unread, all) = (self.files.len() - answers.len(), self.files.len());
        Err(error).at(|| format!("{unread} of {all} images could not be read"))
    }
}

impl Answer<'_> {
    /// The classes in order of their scores, the best first.
    fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.scores.len()).collect();
        order.sort_by(|&a, &b| self.scores[b].total_cmp(&self.scores[a]));
        order
    }

    /// The best class and the best scores; log probabilities as percentages.
    fn line(&self, classes: &[String], readout: &str, is_log: bool) -> String {
        let order = self.order();
        let score = |&class: &usize| {
            let score = self.scores[class];
            match is_log {
                true => format!("{} {:.1}%", classes[class], 100. * score.exp()),
                false => format!("{} {score:.1}", classes[class]),
            }
        };
        let shown: Vec<String> = order.iter().take(3).map(score).collect();
        let best = &classes[order[0]];
        format!(
            "{}: {best}  ({readout}: {})\n",
            self.file.display(),
            shown.join(", ")
        )
    }

    fn json(&self, classes: &[String], readout: &str) -> serde_json::Value {
        let scores = classes.iter().zip(&self.scores);
        let scores: serde_json::Map<_, _> = scores
            .map(|(class, score)| (class.clone(), json!(score)))
            .collect();
        json!({
            "file": self.file.to_string_lossy(),
            "class": classes[self.order()[0]],
            "readout": readout,
            "scores": scores,
        })
    }
}
