//! The connected pieces of a mask, and the objects that they form.

/// A piece with less than this share of the largest piece's pixels is a speck.
const SPECK: f32 = 0.02;

/// Strokes that are closer than this share of the tallest piece belong to one object.
const APART: f32 = 0.08;
/// Of two objects one below the other, the distance is at least this share of the taller.
const BELOW: f32 = 0.15;

/// The mark of a pixel that belongs to no piece.
pub(super) const NOWHERE: usize = usize::MAX;

/// The connected pieces of a mask.
pub(super) struct Pieces {
    /// The piece of each pixel.
    pub of_pixel: Vec<usize>,
    pub found: Vec<Piece>,
}

#[derive(Clone)]
pub(super) struct Piece {
    pub pixels: u32,
    /// Left and top, and the first column and row after it.
    pub sides: [u32; 4],
}

/// Without pixels.
impl Default for Piece {
    fn default() -> Self {
        Self {
            pixels: 0,
            sides: [u32::MAX, u32::MAX, 0, 0],
        }
    }
}

impl Pieces {
    /// Pixels that touch at a side or a corner are connected.
    pub fn of(mask: &[bool], width: u32) -> Self {
        let (width, mut of_pixel) = (width as usize, vec![NOWHERE; mask.len()]);
        let height = mask.len() / width.max(1);
        let (mut found, mut stack) = (Vec::new(), Vec::new());
        for start in 0..mask.len() {
            if !mask[start] || of_pixel[start] != NOWHERE {
                continue;
            }
            let number = found.len();
            let mut piece = Piece::default();
            of_pixel[start] = number;
            stack.push(start);
            while let Some(at) = stack.pop() {
                let (x, y) = (at % width, at / width);
                piece.add(x as u32, y as u32);
                for y in y.saturating_sub(1)..(y + 2).min(height) {
                    for x in x.saturating_sub(1)..(x + 2).min(width) {
                        let beside = y * width + x;
                        if mask[beside] && of_pixel[beside] == NOWHERE {
                            of_pixel[beside] = number;
                            stack.push(beside);
                        }
                    }
                }
            }
            found.push(piece);
        }
        Self { of_pixel, found }
    }

    /// The pieces of the object, the largest first: no specks, and nothing that comes in
    /// from the border if something else is there.
    pub fn kept(&self, width: u32, height: u32) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.found.len()).collect();
        order.sort_by_key(|&piece| std::cmp::Reverse(self.found[piece].pixels));
        let touches = |&piece: &usize| {
            let [left, top, right, bottom] = self.found[piece].sides;
            left == 0 || top == 0 || right == width || bottom == height
        };
        let free = order.iter().copied().find(|piece| !touches(piece));
        let Some(&first) = order.first() else {
            return order;
        };
        if let Some(free) = free {
            // An object that is cut off by the border stays; a shadow in a corner does not.
            if touches(&first) && self.found[free].pixels * 8 >= self.found[first].pixels {
                order.retain(|piece| !touches(piece));
            }
        }
        let largest = order.first().map_or(0, |&piece| self.found[piece].pixels);
        let least = (SPECK * largest as f32).max(1.);
        order.retain(|&piece| self.found[piece].pixels as f32 >= least);
        order
    }

    /// Left and top, and the first column and row after these pieces.
    pub fn sides(&self, kept: &[usize]) -> [u32; 4] {
        let mut all = Piece::default().sides;
        for &piece in kept {
            let [left, top, right, bottom] = self.found[piece].sides;
            all = [
                all[0].min(left),
                all[1].min(top),
                all[2].max(right),
                all[3].max(bottom),
            ];
        }
        all
    }

    /// The number of objects that the kept pieces form.
    ///
    /// Strokes of one object are close together, such as those of a broken 5, or unlike:
    /// the dot of an i is smaller, those of a colon are solid, the bars of an equals sign
    /// are flat.
    pub fn objects(&self, kept: &[usize], width: u32) -> usize {
        let tallest = kept.iter().map(|&piece| self.found[piece].height()).max();
        let groups = self.groups(kept, width, APART * tallest.unwrap_or(0) as f32);
        let Some(first) = groups.iter().max_by_key(|group| group.height()) else {
            return 0;
        };
        let is_another = |group: &&Piece| group.is_beside(first) || group.is_below(first);
        1 + groups.iter().filter(is_another).count()
    }

    /// The kept pieces, joined where they are closer than this.
    fn groups(&self, kept: &[usize], width: u32, distance: f32) -> Vec<Piece> {
        let mut is_kept = vec![false; self.found.len()];
        kept.iter().for_each(|&piece| is_kept[piece] = true);
        let of_pixel = self.of_pixel.iter();
        let mask: Vec<bool> = of_pixel
            .map(|&piece| piece != NOWHERE && is_kept[piece])
            .collect();
        let reach = ((distance / 2.).round() as usize).max(1);
        let joined = Self::of(&thickened(&mask, width as usize, reach), width);
        let mut groups = vec![Piece::default(); joined.found.len()];
        for at in (0..mask.len()).filter(|&at| mask[at]) {
            let (x, y) = (at as u32 % width, at as u32 / width);
            groups[joined.of_pixel[at]].add(x, y);
        }
        groups
    }
}

/// A mask in which everything is larger by `reach` pixels on each side.
fn thickened(mask: &[bool], width: usize, reach: usize) -> Vec<bool> {
    let height = mask.len() / width.max(1);
    let mut wide = vec![false; mask.len()];
    for at in (0..mask.len()).filter(|&at| mask[at]) {
        let (x, row) = (at % width, at - at % width);
        wide[row + x.saturating_sub(reach)..row + (x + reach + 1).min(width)].fill(true);
    }
    let mut tall = vec![false; mask.len()];
    for at in (0..mask.len()).filter(|&at| wide[at]) {
        let (x, y) = (at % width, at / width);
        for y in y.saturating_sub(reach)..(y + reach + 1).min(height) {
            tall[y * width + x] = true;
        }
    }
    tall
}

impl Piece {
    fn add(&mut self, x: u32, y: u32) {
        self.pixels += 1;
        let [left, top, right, bottom] = self.sides;
        self.sides = [left.min(x), top.min(y), right.max(x + 1), bottom.max(y + 1)];
    }

    pub fn height(&self) -> u32 {
        self.sides[3].saturating_sub(self.sides[1])
    }

    fn width(&self) -> u32 {
        self.sides[2].saturating_sub(self.sides[0])
    }

    /// Whether this is another object on the line of `first`, the tallest one.
    fn is_beside(&self, first: &Self) -> bool {
        let ([_, top, _, bottom], [_, first_top, _, first_bottom]) = (self.sides, first.sides);
        let common = bottom.min(first_bottom).saturating_sub(top.max(first_top));
        self.sides != first.sides && self.is_like(first) && 2 * common >= self.height()
    }

    /// Whether this is another object above or below `first`, the tallest one.
    fn is_below(&self, first: &Self) -> bool {
        let ([_, top, _, bottom], [_, first_top, _, first_bottom]) = (self.sides, first.sides);
        let between = top.max(first_top).saturating_sub(bottom.min(first_bottom));
        let is_far = between as f32 >= BELOW * first.height() as f32;
        is_far && self.is_like(first) && !self.is_solid() && !first.is_solid()
    }

    /// Whether this is about as large as `first`, the tallest object.
    fn is_like(&self, first: &Self) -> bool {
        let is_flat = self.width() > 2 * self.height();
        !is_flat && 2 * self.height() >= first.height()
    }

    /// Whether this is a dot.
    fn is_solid(&self) -> bool {
        let (width, height) = (self.width(), self.height());
        let is_round = 2 * width <= 3 * height && 2 * height <= 3 * width;
        is_round && 10 * self.pixels > 7 * width * height
    }

    /// Whether this is a sheet with straight sides that fills much of the image, rather
    /// than an object.
    pub fn is_sheet(&self, width: u32, height: u32) -> bool {
        let [left, top, right, bottom] = self.sides;
        let area = (right - left) * (bottom - top);
        // What is written on it is missing from its pixels.
        width.min(height) >= 32
            && area as f32 >= 0.4 * (width * height) as f32
            && self.pixels as f32 >= 0.75 * area as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIDE: u32 = 100;

    /// The number of objects in a drawing of rectangles: left, top, width, height.
    fn objects(drawn: &[[u32; 4]]) -> usize {
        let mut mask = vec![false; (SIDE * SIDE) as usize];
        for &[left, top, width, height] in drawn {
            for at in (top..top + height).flat_map(|y| (left..left + width).map(move |x| (x, y))) {
                mask[(at.1 * SIDE + at.0) as usize] = true;
            }
        }
        let pieces = Pieces::of(&mask, SIDE);
        pieces.objects(&pieces.kept(SIDE, SIDE), SIDE)
    }

    #[test]
    fn objects_of_similar_size_are_counted() {
        let one = [20, 20, 6, 40];
        assert_eq!(objects(&[one]), 1);
        assert_eq!(objects(&[one, [32, 24, 6, 34]]), 2);
        assert_eq!(objects(&[one, [40, 20, 20, 36], [70, 25, 6, 30]]), 3);
        // One below the other.
        assert_eq!(objects(&[[20, 5, 6, 40], [22, 55, 6, 40]]), 2);
    }

    #[test]
    fn strokes_of_one_object_are_one() {
        let body = [20, 30, 20, 40];
        for (name, drawn) in [
            ("a broken stroke", vec![body, [42, 30, 20, 40]]),
            ("the dot of an i", vec![[20, 30, 6, 40], [20, 14, 6, 7]]),
            ("the bar of a 5", vec![body, [20, 20, 26, 4]]),
            ("a bar far from it", vec![body, [20, 10, 26, 6]]),
            ("a colon", vec![[40, 20, 10, 10], [40, 60, 10, 10]]),
            ("an equals sign", vec![[20, 30, 50, 8], [20, 55, 50, 8]]),
            ("a speck beside it", vec![body, [80, 40, 4, 5]]),
        ] {
            assert_eq!(objects(&drawn), 1, "{name}");
        }
    }
}
