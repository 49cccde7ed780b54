//! Goodness functions.

mod cafo;
mod class_groups;
mod mean_squares;
mod predsim;
mod projection;
mod prototypes;
mod sum_squares;

use onward_core::plugin::preset::Preset;
use onward_core::{BuildContext, Error, Result};

/// What a goodness for each class brings along: the loss of a classifier, and no
/// negatives.
const CLASSIFIER: &[Preset] = &[Preset {
    name: "classifier",
    about: "the loss of a local classifier, without negatives",
    settings: r#"
        loss = "cross_entropy"
        sampler = "plain"
        optimiser = "adam"
        lr = 0.001
        weight_decay = 0.0
        head = false
    "#,
}];

/// The cells per side for averaging a map; `None` for no averages. Refuses cells of an
/// activity that is no map.
fn grid_of_maps(place: &str, grid: usize, context: &BuildContext) -> Result<Option<usize>> {
    if grid == 0 {
        return Ok(None);
    }
    let input = &context.input;
    if input.len() != 3 {
        let problem = format!(
            "`grid = {grid}` averages the cells of maps (channels, height, width), found an \
             activity of shape {input:?}; set goodness.grid=0, or choose a layer of maps"
        );
        return Err(Error::unfit(place, problem));
    }
    Ok(Some(grid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use onward_core::candle_core::{DType, Device};
    use onward_core::Vars;

    #[test]
    fn a_grid_is_of_maps() -> Result<()> {
        let context = BuildContext::new(Vars::new(1, DType::F32, &Device::Cpu), 1);
        let rows = context.clone().with_input(&[12]);
        assert_eq!(grid_of_maps("test", 0, &rows)?, None);
        let error = grid_of_maps("test", 2, &rows).unwrap_err().to_string();
        assert!(error.contains("shape [12]; set goodness.grid=0"), "{error}");
        assert_eq!(
            grid_of_maps("test", 2, &context.with_input(&[3, 4, 4]))?,
            Some(2)
        );
        Ok(())
    }
}
