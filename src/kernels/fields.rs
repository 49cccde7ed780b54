//! The fields around the pixels of images, as a factor of a matrix product (im2col).

use super::sizes::Sizes;

impl Sizes {
    /// The height and width of an image with its border of zeros.
    fn padded_size(&self) -> (usize, usize) {
        (self.height + self.field - 1, self.width + self.field - 1)
    }

    /// Writes `images` with a border of zeros, as wide as a field reaches.
    pub fn pad(&self, images: &[f32], padded: &mut Vec<f32>) {
        let ((height, width), reach) = (self.padded_size(), self.field / 2);
        let planes = images.len() / (self.height * self.width);
        padded.clear();
        padded.resize(planes * height * width, 0.);
        let planes = padded.chunks_exact_mut(height * width);
        for (plane, image) in planes.zip(images.chunks_exact(self.height * self.width)) {
            let lines = plane.chunks_exact_mut(width).skip(reach);
            for (line, pixels) in lines.zip(image.chunks_exact(self.width)) {
                line[reach..][..self.width].copy_from_slice(pixels);
            }
        }
    }
}

/// The fields around the pixels of some lines of images: a matrix of a row for each of
/// the `C·K·K` numbers of a field, and a column for each pixel.
///
/// Its numbers stay where they are in the padded images until a product needs them: that
/// of row `n` and column `p` is `padded[of_number(n) + of_pixel(p)]`.
pub(crate) struct Fields<'a> {
    sizes: &'a Sizes,
    padded: &'a [f32],
    /// The first line, and the number of lines.
    lines: (usize, usize),
}

impl<'a> Fields<'a> {
    /// The fields around the pixels of the lines `(first, count)` of each of the images
    /// that [`Sizes::pad`] has written.
    pub fn new(sizes: &'a Sizes, padded: &'a [f32], lines: (usize, usize)) -> Self {
        Self {
            sizes,
            padded,
            lines,
        }
    }

    /// The rows.
    pub fn numbers(&self) -> usize {
        self.sizes.numbers()
    }

    /// The columns.
    pub fn pixels(&self) -> usize {
        self.padded.len() / self.numbers_of_image() * self.pixels_of_image()
    }

    /// The padded images.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub(super) fn images(&self) -> &'a [f32] {
        self.padded
    }

    /// The pixels of a line.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub(super) fn width(&self) -> usize {
        self.sizes.width
    }

    fn numbers_of_image(&self) -> usize {
        let (height, width) = self.sizes.padded_size();
        self.sizes.inputs * height * width
    }

    fn pixels_of_image(&self) -> usize {
        self.lines.1 * self.sizes.width
    }

    pub(super) fn of_number(&self, number: usize) -> usize {
        let ((height, width), field) = (self.sizes.padded_size(), self.sizes.field);
        let (input, place) = (number / (field * field), number % (field * field));
        (input * height + place / field) * width + place % field
    }

    pub(super) fn of_pixel(&self, pixel: usize) -> usize {
        let (image, pixel) = (
            pixel / self.pixels_of_image(),
            pixel % self.pixels_of_image(),
        );
        let (line, column) = (pixel / self.sizes.width, pixel % self.sizes.width);
        image * self.numbers_of_image()
            + (self.lines.0 + line) * self.sizes.padded_size().1
            + column
    }

    /// Writes the whole matrix, row by row.
    pub fn gather(&self, fields: &mut Vec<f32>) {
        let (pixels, width) = (self.pixels(), self.sizes.padded_size().1);
        fields.resize(self.numbers() * pixels, 0.);
        for (number, row) in fields.chunks_exact_mut(pixels.max(1)).enumerate() {
            let start = self.of_number(number) + self.of_pixel(0);
            let images = self.padded.chunks_exact(self.numbers_of_image());
            for (image, row) in images.zip(row.chunks_exact_mut(self.pixels_of_image())) {
                let lines = image[start..].chunks(width);
                for (line, row) in lines.zip(row.chunks_exact_mut(self.sizes.width)) {
                    copy(&line[..self.sizes.width], row);
                }
            }
        }
    }
}

/// Copies a line of an image. Lines are so short that a call of the system's function
/// would take longer than the copy.
#[inline(always)]
fn copy(from: &[f32], to: &mut [f32]) {
    const PIECE: usize = 8;
    let last = from.len().saturating_sub(PIECE);
    if last == 0 {
        for (to, from) in to.iter_mut().zip(from) {
            *to = *from;
        }
        return;
    }
    for (to, from) in to.chunks_exact_mut(PIECE).zip(from.chunks_exact(PIECE)) {
        to.copy_from_slice(from);
    }
    // The rest, with some of the piece before it.
    to[last..][..PIECE].copy_from_slice(&from[last..][..PIECE]);
}
