//! `onward predict`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::failures::Failures;
use super::flags::{open_to_predict, Device, ReadoutName};
use super::output::{csv_line, print, print_csv, print_json};
use crate::data::pictures::pictures_in;
use crate::error::{notify, printable, Error, Result};
use crate::run::predict::Answer;

#[derive(Args)]
pub(super) struct Predict {
    /// Folder of a run.
    run: PathBuf,
    /// Pictures of any size, grey or colour (PNG, JPEG, WebP, BMP, TIFF, GIF), and
    /// folders of them. They should look like those of the training. If those are cut out
    /// and centred, as in mnist, the ink may be dark or light, and anywhere on the page.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    readout: ReadoutName,
    /// Print JSON, with the score of every class.
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print CSV, with the score of every class.
    #[arg(long)]
    csv: bool,
    #[command(flatten)]
    device: Device,
}

impl Predict {
    pub(super) fn run(self) -> Result<()> {
        // A run and a picture in the wrong order are noticed at the run.
        let run = open_to_predict(&self.run, &self.device)?;
        let files = self.pictures()?;
        let readout = self.readout.readout.clone();
        let readout = readout.unwrap_or_else(|| run.preferred_readout());
        let (mut answers, mut failures) = (Vec::new(), Failures::default());
        let all = run.predict_each(&files, Some(&readout))?;
        for (file, answer) in files.iter().zip(all) {
            match answer {
                Ok(answer) => {
                    if let Some(remark) = &answer.remark {
                        notify(format_args!("note: {}: {remark}", file.display()));
                    }
                    answers.push((file.as_path(), answer));
                }
                // The remaining pictures are still classified.
                Err(error) if files.len() > 1 => failures.add(error),
                Err(error) => return Err(error),
            }
        }
        let shown = Shown {
            classes: &run.data().spec.classes,
            readout: &readout,
        };
        if self.json {
            let answers = answers
                .iter()
                .map(|(file, answer)| shown.json(file, answer));
            print_json(&answers.collect::<Vec<_>>())?;
        } else if self.csv {
            let lines = answers.iter().map(|(file, answer)| shown.csv(file, answer));
            print_csv(&(shown.csv_header() + &lines.collect::<String>()))?;
        } else {
            let lines = answers
                .iter()
                .map(|(file, answer)| shown.line(file, answer));
            print(&lines.collect::<String>())?;
        }
        failures.finish(files.len(), "images")
    }

    /// The files, and the pictures in the folders.
    fn pictures(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for file in &self.files {
            if !file.is_dir() {
                found.push(file.clone());
                continue;
            }
            let inside = pictures_in(file)?;
            if inside.is_empty() {
                let problem = "has no pictures in it or in its folders";
                return Err(Error::usage(file.display().to_string(), problem));
            }
            found.extend(inside);
        }
        Ok(found)
    }
}

/// How answers are shown.
struct Shown<'a> {
    classes: &'a [String],
    readout: &'a str,
}

impl Shown<'_> {
    /// The best class and the best scores; probabilities as percentages.
    fn line(&self, file: &Path, answer: &Answer) -> String {
        let file = printable(&file.display().to_string());
        let Some(class) = &answer.class else {
            return format!("{file}: nothing found\n");
        };
        let mut order: Vec<usize> = (0..answer.scores.len()).collect();
        order.sort_by(|&a, &b| answer.scores[b].total_cmp(&answer.scores[a]));
        let score = |&class: &usize| {
            let (name, score) = (printable(&self.classes[class]), answer.scores[class]);
            match answer.probability {
                Some(_) => format!("{name} {:.1}%", 100. * score.exp()),
                None => format!("{name} {score:.1}"),
            }
        };
        let best: Vec<String> = order.iter().take(3).map(score).collect();
        let (class, best) = (printable(class), best.join(", "));
        format!("{file}: {class}  ({}: {best})\n", self.readout)
    }

    fn csv_header(&self) -> String {
        let first = ["file", "class", "probability"].map(String::from);
        csv_line(first.iter().chain(self.classes))
    }

    fn csv(&self, file: &Path, answer: &Answer) -> String {
        let number = |number: f64| number.to_string();
        let first = [
            file.to_string_lossy().into_owned(),
            answer.class.clone().unwrap_or_default(),
            answer.probability.map_or(String::new(), number),
        ];
        let scores = answer.scores.iter().map(|score| number(*score));
        let scores: Vec<String> = match answer.scores.is_empty() {
            true => self.classes.iter().map(|_| String::new()).collect(),
            false => scores.collect(),
        };
        csv_line(first.iter().chain(&scores))
    }

    fn json(&self, file: &Path, answer: &Answer) -> serde_json::Value {
        let scores = self.classes.iter().zip(&answer.scores);
        let scores: serde_json::Map<_, _> = scores
            .map(|(class, score)| (class.clone(), json!(score)))
            .collect();
        json!({
            "file": file.to_string_lossy(),
            "class": answer.class,
            "probability": answer.probability,
            "readout": self.readout,
            "scores": scores,
            "objects": answer.objects,
            "remark": answer.remark,
        })
    }
}
