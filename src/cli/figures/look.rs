//! What there is to see of a run.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device as Place, Tensor, D};
use image::{GrayImage, ImageFormat, RgbImage};
use serde_json::Value as Json;

use crate::cli::command_line::{configuration, shortest};
use crate::cli::flags::{DataDir, Device};
use crate::cli::report::{no_run, unfinished};
use crate::data::{Content, Split};
use crate::disk;
use crate::error::{notify, Error, Result};
use crate::flow::examples::spread;
use crate::run::folder::{CONFIG, SUMMARY};
use crate::run::generate::{Generator, Sampling};
use crate::run::goodness::ViewGoodness;
use crate::run::locality::Certificate;
use crate::run::observe::metrics;
use crate::run::{picture, summary, Run};

/// The most test examples that are looked at.
const EXAMPLES: usize = 2000;

/// The most test examples whose activities are looked at.
const ACTIVITIES: usize = 1000;

/// The most test examples of whose views the goodness is looked at.
const VIEWS: usize = 1000;

/// The number of tokens that are generated.
const TOKENS: usize = 300;

/// The number of wrong answers that are shown.
const WORST: usize = 24;

/// What was found in the folder of a run, and why something is missing.
#[derive(Default)]
pub(in crate::cli) struct Look {
    pub name: String,
    pub settings: String,
    pub command: String,
    pub summary: Option<Json>,
    pub metrics: Vec<Json>,
    pub layers: Vec<Layer>,
    /// The goodness of views of test examples.
    pub goodness: Vec<ViewGoodness>,
    pub answers: Option<Answers>,
    /// Text that the network wrote, for text.
    pub text: Option<String>,
    /// The sheet of `onward picture`, as PNG.
    pub sheet: Option<Vec<u8>>,
    pub gaps: Vec<String>,
}

/// A layer, looked at with test examples.
pub(in crate::cli) struct Layer {
    pub name: String,
    /// The error of a probe on the test part.
    pub probe: f64,
    /// The fraction of units that are 0 for all examples.
    pub dead: f64,
    pub units: usize,
    /// `(tr C)² / tr(C²)` of the covariance `C`: the number of directions that matter.
    pub rank: f64,
}

/// The answers on the test part.
pub(in crate::cli) struct Answers {
    pub readout: String,
    pub classes: Vec<String>,
    /// How often class `row` was answered by class `column`.
    pub confusion: Vec<Vec<usize>>,
    pub worst: Vec<Wrong>,
}

/// A wrong answer.
pub(in crate::cli) struct Wrong {
    pub label: usize,
    pub answer: usize,
    /// The score of each class.
    pub scores: Vec<f32>,
    pub png: Vec<u8>,
}

impl Look {
    /// Looks at all of these folders, and says what is missing.
    ///
    /// # Errors
    /// If none of them has a run.
    pub fn at_all(runs: &[PathBuf], data_dir: &DataDir, device: &Device) -> Result<Vec<Self>> {
        let look = |run: &PathBuf| {
            let look = Self::at(run, data_dir, device);
            let place = format!("{}: ", run.display());
            for gap in &look.gaps {
                let gap = gap.strip_prefix(&place).unwrap_or(gap);
                notify(format_args!("{place}{gap}"));
            }
            look
        };
        let mut looks: Vec<Self> = runs.iter().map(look).collect();
        // Folders of one name, as in several comparisons.
        for index in 1..looks.len() {
            let (before, this) = looks.split_at(index);
            let has = |name: &str| before.iter().any(|look| look.name == name);
            let base = &this[0].name;
            let numbered = (2..).map(|number| format!("{base}-{number}"));
            let mut names = std::iter::once(base.clone()).chain(numbered);
            looks[index].name = names.find(|name| !has(name)).unwrap_or_default();
        }
        if looks.iter().all(Self::is_empty) {
            let folders: Vec<_> = runs.iter().map(|run| run.display().to_string()).collect();
            let problem = "no run there; start one with `onward train`";
            return Err(Error::usage(folders.join(", "), problem));
        }
        Ok(looks)
    }

    fn at(folder: &Path, data_dir: &DataDir, device: &Device) -> Self {
        // Of `.` and `..` too.
        let whole = folder.canonicalize().unwrap_or_else(|_| folder.into());
        let name = whole.file_name().map(|name| name.to_string_lossy());
        let mut look = Self {
            name: name.map_or("run".into(), |name| name.into_owned()),
            ..Self::default()
        };
        let config = folder.join(CONFIG);
        match disk::read_text(&config) {
            Ok(text) => look.settings = text,
            Err(_) if !config.is_file() => look.gaps.push(no_run(folder)),
            Err(error) => look.gaps.push(error.to_string()),
        }
        if look.settings.is_empty() {
            return look;
        }
        let command = configuration(&config).and_then(|found| shortest(&found, &config));
        look.note(command, |look, command| look.command = command);
        let summary = folder.join(SUMMARY);
        if summary.is_file() {
            look.note(summary::read(&summary), |look, found| {
                look.summary = Some(found);
            });
        } else {
            look.gaps.push(unfinished(folder));
        }
        look.note(metrics::lines(folder), |look, lines| look.metrics = lines);
        let run = Run::open(folder).map(|builder| builder.device(&device.device));
        let run = run.and_then(|builder| data_dir.add_to(builder)?.build());
        look.note(run, |look, run| {
            look.note(answers(&run), |look, found| look.answers = found);
            look.note(layers(&run), |look, found| look.layers = found);
            let goodness = run.goodness_of_views(Split::Test, VIEWS);
            look.note(goodness, |look, found| look.goodness = found);
            match run.data().spec.content {
                Content::Picture(_) => {
                    look.note(sheet(&run), |look, found| look.sheet = Some(found));
                }
                Content::Text => look.note(text(&run), |look, found| look.text = Some(found)),
            }
        });
        look
    }

    /// Uses what was found, or notes why it is missing.
    fn note<T>(&mut self, found: Result<T>, with: impl FnOnce(&mut Self, T)) {
        match found {
            Ok(found) => with(self, found),
            Err(error) => {
                let gap = error.to_string();
                // Several parts may be missing for one reason.
                if !self.gaps.contains(&gap) {
                    self.gaps.push(gap);
                }
            }
        }
    }

    /// What the update of each block depends on, if it was measured.
    pub fn certificate(&self) -> Option<Certificate> {
        serde_json::from_value(self.summary.as_ref()?["locality"].clone()).ok()
    }

    /// Whether there is no run at all.
    pub fn is_empty(&self) -> bool {
        self.settings.is_empty()
    }
}

fn sheet(run: &Run) -> Result<Vec<u8>> {
    png(&picture::sheet(run, 12)?.into())
}

fn png(picture: &image::DynamicImage) -> Result<Vec<u8>> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let written = picture.write_to(&mut bytes, ImageFormat::Png);
    written.map_err(|error| Error::usage("picture", error.to_string()))?;
    Ok(bytes.into_inner())
}

fn answers(run: &Run) -> Result<Option<Answers>> {
    let spec = &run.data().spec;
    if !matches!(spec.content, Content::Picture(_)) || spec.positions > 1 {
        return Ok(None);
    }
    let (readout, count) = (run.preferred_readout(), spec.classes.len());
    let mut confusion = vec![vec![0; count]; count];
    let mut worst: Vec<(f32, usize, Wrong)> = Vec::new();
    let test = run.data().split(Split::Test);
    for indices in spread(test.len(), EXAMPLES).chunks(100) {
        let batch = test.batch(indices, None)?;
        let scores = run.scores(batch.examples().clone(), &readout)?;
        let scores = scores.to_dtype(DType::F32)?.to_vec2::<f32>()?;
        for ((index, scores), &label) in indices.iter().zip(scores).zip(batch.labels()?) {
            let label = label as usize;
            let better = |a: &usize, b: &usize| scores[*a].total_cmp(&scores[*b]);
            let answer = (0..scores.len()).max_by(better).unwrap_or(label);
            confusion[label][answer] += 1;
            if answer != label {
                let margin = scores[answer] - scores[label];
                let wrong = Wrong {
                    label,
                    answer,
                    scores,
                    png: Vec::new(),
                };
                worst.push((margin, *index, wrong));
            }
        }
    }
    worst.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    worst.truncate(WORST);
    let wrong = |(_, index, wrong): (f32, usize, Wrong)| {
        let batch = test.batch(&[index], None)?;
        let png = example(batch.examples(), &spec.shape)?;
        Ok(Wrong { png, ..wrong })
    };
    Ok(Some(Answers {
        readout,
        classes: spec.classes.clone(),
        confusion,
        worst: worst.into_iter().map(wrong).collect::<Result<_>>()?,
    }))
}

/// Text that begins as texts do.
fn text(run: &Run) -> Result<String> {
    let readout = run.preferred_readout();
    let sampling = Sampling::default();
    let mut generator = Generator::new(run, "\n", Some(&readout), sampling)
        .or_else(|_| Generator::new(run, "\n", None, sampling))?;
    let mut text = String::new();
    for _ in 0..TOKENS {
        text += &generator.step()?;
    }
    Ok(text + &generator.finish()?)
}

/// An example as a picture, grey or in colours.
fn example(example: &Tensor, shape: &[usize]) -> Result<Vec<u8>> {
    let values = example
        .to_dtype(DType::F32)?
        .flatten_all()?
        .to_vec1::<f32>()?;
    let byte = |value: f32| (255. * value.clamp(0., 1.)).round() as u8;
    let size = |length: usize| u32::try_from(length).unwrap_or(0);
    let picture = match *shape {
        [3, height, width] => {
            let plane = height * width;
            let pixels = (0..plane).flat_map(|at| [0, 1, 2].map(|c| byte(values[c * plane + at])));
            RgbImage::from_raw(size(width), size(height), pixels.collect()).map(Into::into)
        }
        [.., height, width] => {
            let pixels = values[..height * width].iter().map(|value| byte(*value));
            GrayImage::from_raw(size(width), size(height), pixels.collect()).map(Into::into)
        }
        _ => None,
    };
    let picture = picture.ok_or_else(|| Error::shape("picture", shape, "height and width"))?;
    png(&picture)
}

fn layers(run: &Run) -> Result<Vec<Layer>> {
    let test = run.data().split(Split::Test);
    let probes = run.probe_layers(Split::Test)?;
    let mut seen: Vec<Vec<Tensor>> = Vec::new();
    for indices in spread(test.len(), ACTIVITIES).chunks(100) {
        let batch = test.batch(indices, None)?;
        for (index, (_, activity)) in run
            .activities(batch.examples().clone())?
            .into_iter()
            .enumerate()
        {
            if seen.len() == index {
                seen.push(Vec::new());
            }
            // Of maps, the mean of each channel.
            let units = match activity.rank() {
                0..=2 => activity,
                _ => activity.flatten_from(2)?.mean(D::Minus1)?,
            };
            seen[index].push(units.to_device(&Place::Cpu)?.to_dtype(DType::F32)?);
        }
    }
    let layer = |((name, probe), seen): ((String, crate::data::score::Score), Vec<Tensor>)| {
        let rows = Tensor::cat(&seen, 0)?;
        let (count, units) = rows.dims2()?;
        let largest = rows.abs()?.max(0)?.to_vec1::<f32>()?;
        let dead = largest.iter().filter(|most| **most == 0.).count();
        let centred = rows.broadcast_sub(&rows.mean_keepdim(0)?)?;
        // C and the matrix of products of rows have the same traces.
        let products = match units < count {
            true => centred.t()?.matmul(&centred)?,
            false => centred.matmul(&centred.t()?)?,
        };
        let total = centred.sqr()?.sum_all()?.to_scalar::<f32>()?;
        let squares = products.sqr()?.sum_all()?.to_scalar::<f32>()?;
        Ok(Layer {
            name,
            probe: probe.error,
            dead: dead as f64 / units.max(1) as f64,
            units,
            rank: f64::from(total) * f64::from(total) / f64::from(squares).max(f64::MIN_POSITIVE),
        })
    };
    probes.into_iter().zip(seen).map(layer).collect()
}
