//! Gradients, in the forms that an optimiser accepts.

use std::sync::Arc;

use candle_core::{Tensor, Var};

use super::accumulate::Accumulator;
use super::{OutputGradient, Product};
use crate::error::{Error, Result};

/// The gradient of a loss with respect to a variable.
#[derive(Clone, Copy)]
pub enum Gradient<'a> {
    /// A tensor of the variable's shape.
    Whole(&'a Tensor),
    /// The sum of the rows of an output gradient, `(R, N)`, for a bias, `(N,)`.
    ColumnSums(&'a OutputGradient),
    /// Products, one for each range of the variable's rows, from the first row to the
    /// last.
    Products(&'a [Product]),
    /// Products and the [`Form`] that makes the gradient from them: one product for each
    /// range of the columns of an input, from the first to the last. A variable always
    /// has the same form. Only for `f32` on the CPU.
    Formed(&'a Arc<dyn Form>, &'a [Product]),
}

/// Makes the gradient of a variable from values and output gradients, if it is not a
/// plain matrix product.
///
/// The gradient is linear in both. So the output gradients of lessons on the same values
/// can be added before the gradient is formed. The weights of local receptive fields have
/// such a gradient.
pub trait Form: Send + Sync {
    /// Computes `sum ← keep·sum + factor·gradient`, for `[keep, factor]`, then calls
    /// `finish` with each piece of `sum` that was written and the same piece of `beside`.
    ///
    /// `sum` and `beside` are as long as the variable; `beside` may be empty. The values
    /// of the product are the columns of the input from `first` on. Exactly those elements
    /// are written that are multiplied by these columns; with a `keep` of 0 they are not
    /// read before.
    ///
    /// # Errors
    /// Errors of candle.
    fn add_to(
        &self,
        sum_and_beside: [&mut [f32]; 2],
        first: usize,
        product: &Product,
        factors: [f32; 2],
        finish: &(dyn Fn(&mut [f32], &mut [f32]) + Sync),
    ) -> Result<()>;
}

impl Gradient<'_> {
    pub(super) fn check(&self, var: &Var) -> Result<()> {
        let (found, fits) = match self {
            Self::Whole(gradient) => (gradient.dims().to_vec(), gradient.dims() == var.dims()),
            Self::ColumnSums(gradient) => {
                let width = gradient.dims().last().copied().unwrap_or_default();
                (vec![width], [width] == var.dims())
            }
            Self::Products(products) => {
                let rows = rows_of(products, var)?;
                (vec![rows], rows == var.dim(0)?)
            }
            // The form determines the shape.
            Self::Formed(..) => return Ok(()),
        };
        match fits {
            true => Ok(()),
            false => Err(Error::shape(
                "gradient",
                found,
                format!("shape {:?}", var.dims()),
            )),
        }
    }

    /// The gradient as a tensor, computed with candle's operations.
    pub(super) fn whole(&self, var: &Var) -> Result<Tensor> {
        match self {
            Self::Whole(gradient) => Ok((*gradient).clone()),
            Self::ColumnSums(gradient) => gradient.column_sums(),
            Self::Products(products) => {
                let rows = products.iter().map(|product| product.whole(var.dtype()));
                Ok(Tensor::cat(&rows.collect::<Result<Vec<_>>>()?, 0)?)
            }
            Self::Formed(form, products) => formed(var, form, products),
        }
    }
}

/// The number of rows of a variable that products cover.
fn rows_of(products: &[Product], var: &Var) -> Result<usize> {
    let mut rows = 0;
    for product in products {
        let found = product.delta.dims();
        if var.rank() != 2 || found != [product.values.rows()?, var.dim(1)?] {
            let expected = format!(
                "({}, N) for a variable of shape {:?}",
                product.values.rows()?,
                var.dims()
            );
            return Err(Error::shape("product of a gradient", found, expected));
        }
        rows += product.values.width()?;
    }
    Ok(rows)
}

/// The gradient of a variable that `form` makes from `products`, in the variable's shape.
pub(crate) fn formed(var: &Var, form: &Arc<dyn Form>, products: &[Product]) -> Result<Tensor> {
    let mut sum = Accumulator::new(var)?;
    sum.add(Gradient::Formed(form, products), 1.)?;
    Ok(sum.whole(1.)?.clone())
}
