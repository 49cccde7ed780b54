//! Gradients, in the forms that an optimiser takes them in.

use std::sync::Arc;

use candle_core::{Tensor, Var};

use super::accumulate::Sum;
use super::Product;
use crate::error::{Error, Result};

/// The gradient of a loss with respect to a variable.
#[derive(Clone, Copy, Debug)]
pub enum Gradient<'a> {
    /// As a tensor of the variable's shape.
    Whole(&'a Tensor),
    /// As products, one for each range of the variable's rows, from the first row to the last.
    Products(&'a [Product]),
}

/// Makes the gradient of a variable of values and deltas, where it is no plain matrix product.
///
/// It is linear in both, so that lessons on the same values can be added up before anything is formed.
pub(crate) trait Form: Send + Sync {
    /// Adds `factor` times what `product` makes to `gradient`, that of the whole variable; the values of the product
    /// are the columns of the input from `first` on.
    ///
    /// # Errors
    /// Whatever candle refuses.
    fn add_to(
        &self,
        gradient: &mut [f32],
        first: usize,
        product: &Product,
        factor: f32,
    ) -> Result<()>;
}

impl Gradient<'_> {
    pub(super) fn check(&self, var: &Var) -> Result<()> {
        let fits = match self {
            Self::Whole(gradient) => gradient.dims() == var.dims(),
            Self::Products(products) => {
                let mut rows = 0;
                for product in *products {
                    let found = product.delta.dims().to_vec();
                    if var.rank() != 2 || found != [product.values.rows()?, var.dim(1)?] {
                        let expected =
                            format!("({}, N) for {:?}", product.values.rows()?, var.dims());
                        return Err(Error::Shape {
                            place: "product of a gradient".into(),
                            found,
                            expected,
                        });
                    }
                    rows += product.values.width()?;
                }
                rows == var.dim(0)?
            }
        };
        if fits {
            return Ok(());
        }
        let found = match self {
            Self::Whole(gradient) => gradient.dims().to_vec(),
            Self::Products(products) => vec![products.len()],
        };
        Err(Error::Shape {
            place: "gradient".into(),
            found,
            expected: format!("that of {:?}", var.dims()),
        })
    }

    /// As a tensor, by candle's operations.
    pub(super) fn whole(&self, var: &Var) -> Result<Tensor> {
        match self {
            Self::Whole(gradient) => Ok((*gradient).clone()),
            Self::Products(products) => {
                let rows = products.iter().map(|product| product.whole(var.dtype()));
                Ok(Tensor::cat(&rows.collect::<Result<Vec<_>>>()?, 0)?)
            }
        }
    }
}

/// The gradient of a variable that `form` makes of `products`, of the variable's shape.
pub(crate) fn formed(var: &Var, form: &Arc<dyn Form>, products: &[Product]) -> Result<Tensor> {
    let mut sum = Sum::new(var)?;
    sum.add_formed(form, products, 1.)?;
    Ok(sum.whole(1.)?.clone())
}
