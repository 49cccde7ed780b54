//! Views of a batch with their roles and labels: the passes from which layers learn.

use std::sync::Arc;

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::flow::input::Input;
use crate::flow::sampled_classes::SampledClasses;

/// The role of a view for a layer that learns from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A view whose goodness should be high.
    Positive,
    /// A view whose goodness should be low.
    Negative,
}

/// The targets of a block: the role of every view, and the labels if the block may see
/// them.
#[derive(Clone, Debug)]
pub struct Targets {
    roles: Vec<Role>,
    labels: Option<Vec<u32>>,
    offset: Option<Tensor>,
    sampled: Option<Arc<SampledClasses>>,
    tells_label: bool,
}

impl Targets {
    /// Targets of views with these roles, positive views first. A rule without negatives
    /// has one positive view.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is no positive view, or one follows a negative view.
    pub fn new(roles: Vec<Role>) -> Result<Self> {
        let positive = roles
            .iter()
            .take_while(|role| **role == Role::Positive)
            .count();
        if positive == 0 || roles[positive..].contains(&Role::Positive) {
            let problem = format!("expected one or more positive views first, found {roles:?}");
            return Err(Error::usage("views", problem));
        }
        Ok(Self {
            roles,
            labels: None,
            offset: None,
            sampled: None,
            tells_label: false,
        })
    }

    /// The same for views off which the label can be read, other than as a part of the input,
    /// such as the error of the network. A classifier refuses them.
    pub fn that_tell_label(self) -> Self {
        Self {
            tells_label: true,
            ..self
        }
    }

    /// Whether the label can be read off the views: [`Targets::that_tell_label`].
    pub fn tell_label(&self) -> bool {
        self.tells_label
    }

    /// The same with labels: one per example, or one per position of each example.
    pub fn with_labels(self, labels: Option<Vec<u32>>) -> Self {
        Self { labels, ..self }
    }

    /// The same with an offset that is added to the goodness before the loss is computed.
    /// It has the shape of the goodness.
    ///
    /// An architecture in which layers cooperate passes the goodness of other layers
    /// here. It is detached.
    pub fn with_offset(self, offset: &Tensor) -> Self {
        Self {
            offset: Some(offset.detach()),
            ..self
        }
    }

    /// The same where the step compares some of the classes alone; `None`: all.
    ///
    /// A goodness for each class may then compute the columns of these alone. One that
    /// does not look is correct too, but slower. They are hidden with the labels.
    pub fn with_sampled(self, sampled: Option<Arc<SampledClasses>>) -> Self {
        Self { sampled, ..self }
    }

    /// The same without labels.
    pub fn hidden(&self) -> Self {
        Self {
            roles: self.roles.clone(),
            labels: None,
            offset: self.offset.clone(),
            sampled: None,
            tells_label: self.tells_label,
        }
    }

    /// The role of every view; positive views come first.
    pub fn roles(&self) -> &[Role] {
        &self.roles
    }

    /// The number of positive views.
    pub fn positive(&self) -> usize {
        let is_positive = |role: &&Role| **role == Role::Positive;
        self.roles.iter().filter(is_positive).count()
    }

    /// The label of every example, `(B,)`, or of every position of every example,
    /// `(B·P,)`.
    ///
    /// # Errors
    /// [`Error::Usage`] if the labels are hidden or absent.
    pub fn labels(&self) -> Result<&[u32]> {
        self.labels.as_deref().ok_or_else(|| {
            let problem = "labels are needed, but hidden or absent here; a layer or \
                           goodness that learns from labels must declare it with \
                           `uses_labels`, and the data must have labels";
            Error::usage("targets", problem)
        })
    }

    /// Whether there are labels.
    pub fn has_labels(&self) -> bool {
        self.labels.is_some()
    }

    /// The classes that the step compares; `None`: all.
    pub fn sampled(&self) -> Option<&SampledClasses> {
        self.sampled.as_deref()
    }

    /// The offset that is added to the goodness before the loss is computed.
    pub fn offset(&self) -> Option<&Tensor> {
        self.offset.as_ref()
    }
}

/// The passes from which layers learn: the views in [`Views::input`], and their targets.
#[derive(Clone, Debug)]
pub struct Views {
    /// All views of the batch.
    pub input: Input,
    /// The targets of the views.
    pub targets: Targets,
}

impl Views {
    /// Views with their roles, positive views first.
    ///
    /// Samplers need not pass labels on: the framework adds the labels of the batch to
    /// the targets.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is not one role for each view; errors of
    /// [`Targets::new`].
    pub fn new(input: Input, roles: Vec<Role>) -> Result<Self> {
        if input.views() != roles.len() {
            let problem = format!(
                "expected a role for each of {} views, found {}",
                input.views(),
                roles.len()
            );
            return Err(Error::usage("views", problem));
        }
        Ok(Self {
            input,
            targets: Targets::new(roles)?,
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
            let positive = roles.iter().filter(|role| **role == Positive).count();
            let views = Views::new(input(roles.len())?, roles)?;
            assert_eq!(views.targets.positive(), positive);
        }
        for roles in [
            vec![Negative],
            vec![Negative, Positive],
            vec![Positive, Negative, Positive],
        ] {
            let error = Views::new(input(roles.len())?, roles).unwrap_err();
            assert!(
                error.to_string().contains("positive views first"),
                "{error}"
            );
        }
        assert!(Views::new(input(2)?, vec![Positive]).is_err());
        Ok(())
    }

    #[test]
    fn hidden_targets_have_no_labels() -> Result<()> {
        let targets = Targets::new(vec![Role::Positive])?.with_labels(Some(vec![1, 0]));
        assert_eq!(targets.labels()?, [1, 0]);
        assert!(targets.hidden().labels().is_err());
        Ok(())
    }
}
