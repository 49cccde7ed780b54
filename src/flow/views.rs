//! The passes that a layer learns from.

use crate::error::{Error, Result};
use crate::flow::input::Input;

/// What a view is to a layer that learns from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Its goodness should be high.
    Positive,
    /// Its goodness should be low; or, for a rule without goodness, the second, modulated pass.
    Negative,
}

/// The passes to learn from: the views of [`Views::input`], each with a role.
#[derive(Clone, Debug)]
pub struct Views {
    /// All views of the batch.
    pub input: Input,
    /// What each view is, the positive ones first; a rule without negatives has one view, which is positive.
    pub roles: Vec<Role>,
    /// The class of each example, for losses that need it.
    pub labels: Option<Vec<u32>>,
}

impl Views {
    /// Views with their roles.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if there is not one role for each view, or the positive views do not come first.
    pub fn new(input: Input, roles: Vec<Role>, labels: Option<Vec<u32>>) -> Result<Self> {
        if input.views() != roles.len() {
            let problem = format!("{} views with {} roles", input.views(), roles.len());
            return Err(Error::Mismatch {
                place: "views".into(),
                problem,
            });
        }
        // Layers find the positive rows by it.
        let positive = roles
            .iter()
            .take_while(|role| **role == Role::Positive)
            .count();
        if positive == 0 || roles[positive..].contains(&Role::Positive) {
            let problem = format!("the positive views, at least one, come first; found {roles:?}");
            return Err(Error::Mismatch {
                place: "views".into(),
                problem,
            });
        }
        Ok(Self {
            input,
            roles,
            labels,
        })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::*;

    #[test]
    fn positive_views_come_first() -> Result<()> {
        use Role::{Negative, Positive};
        let input = |views: usize| {
            Input::stacked(
                Tensor::zeros((2 * views, 3), DType::F32, &Device::Cpu)?,
                views,
            )
        };
        for roles in [
            vec![Positive],
            vec![Positive, Negative],
            vec![Positive, Positive, Negative],
        ] {
            Views::new(input(roles.len())?, roles, None)?;
        }
        for roles in [
            vec![Negative],
            vec![Negative, Positive],
            vec![Positive, Negative, Positive],
        ] {
            let error = Views::new(input(roles.len())?, roles, None)
                .unwrap_err()
                .to_string();
            assert!(error.contains("come first"), "{error}");
        }
        assert!(Views::new(input(2)?, vec![Positive], None).is_err());
        Ok(())
    }
}
