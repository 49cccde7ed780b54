//! What is clamped below and above the layers of a recurrent net, taken from a sampler's views.

use onward::{Error, Input, Result, Site, Values};

/// Which columns of a sampler's views are clamped where.
#[derive(Clone, Copy)]
pub(super) struct Clamps {
    /// How many columns of the views are the label, or none.
    label: usize,
    /// How many columns stand above the last layer: the label, or a map that is dealt to the classes, or none.
    pub above: usize,
    /// How many columns are below at a time.
    pub below: usize,
    /// How many frames there are.
    pub frames: usize,
}

/// Views taken apart.
pub(super) struct Clamped {
    pub below: Vec<Values>,
    pub label: Option<Input>,
    pub batch: usize,
    pub views: usize,
}

impl Clamps {
    pub fn new(site: &Site, steps: usize, jitter: usize) -> Result<Self> {
        let (input, example): (usize, usize) = (site.input.iter().product(), site.example.iter().product());
        let label = if input == example + site.classes { site.classes } else { 0 };
        let frames = if site.example.len() == 4 { site.example[0] } else { 1 };
        let problem = match (frames, label) {
            (2.., 0) => "videos need a sampler that puts the label behind them, as label_concat does".to_string(),
            (2.., _) if frames != steps => format!("videos of {frames} frames need `steps = {frames}`"),
            _ if jitter > 0 && (frames > 1 || label == 0 || site.example.len() != 3) => {
                "only still images with the label behind them can be moved at every step; set `jitter = 0`".to_string()
            }
            _ => return Ok(Self { label, above: label, below: (input - label) / frames, frames }),
        };
        Err(Error::Mismatch { place: "recurrent".into(), problem })
    }

    /// Makes a map of the label, as large as the images that are below: their height and width.
    pub fn deal_label(&mut self, site: &Site) -> Result<[usize; 2]> {
        let frames = if self.frames > 1 { 1 } else { 0 };
        let problem = match site.example[frames..] {
            [channels, height, width] if channels * height * width == self.below && self.label <= height * width => {
                self.above = if self.label == 0 { 0 } else { height * width };
                return Ok([height, width]);
            }
            [_, height, width] if self.label > height * width => {
                let label = self.label;
                format!("{label} classes do not fit into maps of {height}×{width}; set `maps = false`")
            }
            _ => format!("`maps` need images (channels, height, width); {:?} are none", site.example),
        };
        Err(Error::Mismatch { place: "recurrent".into(), problem })
    }

    pub fn take(self, input: &Input) -> Result<Clamped> {
        let (batch, views) = (input.batch(), input.views());
        let mut below: Vec<Values> = input.parts().iter().map(|part| part.values.clone()).collect();
        if self.label == 0 {
            return Ok(Clamped { below, label: None, batch, views });
        }
        let label = below
            .pop()
            .map_or_else(|| Ok(None), |part| part.width().map(|width| (width == self.label).then_some(part)))?;
        let label = label.ok_or_else(|| Error::Mismatch {
            place: "recurrent".into(),
            problem: format!("the label has to be the last part of a view, {} columns", self.label),
        })?;
        let label = match self.above == self.label {
            true => label,
            false => {
                let matrix = label.to_matrix(input.dtype_and_device().0)?;
                let (times, rest) = (self.above / self.label, self.above % self.label);
                Values::dense(matrix.repeat((1, times))?.pad_with_zeros(1, 0, rest)?)?
            }
        };
        let label = Some(Input::new(vec![label], batch, views, &[self.above])?);
        Ok(Clamped { below, label, batch, views })
    }
}
