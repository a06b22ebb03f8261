//! Draws from a list with given chances in constant time (Walker's alias method, built as Vose describes it in
//! "A Linear Algorithm for Generating Random Numbers with a Given Distribution", 1991).

#[derive(Clone, Copy, Debug)]
struct Column {
    /// Chance of staying in the column, as a part of 2³².
    keep: u32,
    alias: u32,
}

/// A distribution over the indices 0 to `len`.
#[derive(Debug, Default)]
pub struct Draw(Vec<Column>);

impl Draw {
    /// `chances` need not sum up to anything; each is positive and finite.
    pub fn new(chances: &[f64]) -> Self {
        let mean = chances.iter().sum::<f64>() / chances.len() as f64;
        let mut rest: Vec<f64> = chances.iter().map(|chance| chance / mean).collect();
        let mut columns: Vec<_> =
            (0..chances.len()).map(|index| Column { keep: u32::MAX, alias: index as u32 }).collect();
        let (mut small, mut large): (Vec<_>, Vec<_>) = (0..rest.len()).partition(|index| rest[*index] < 1.0);
        while let (Some(&taker), Some(&giver)) = (small.last(), large.last()) {
            small.pop();
            columns[taker] = Column { keep: (rest[taker] * f64::from(u32::MAX)) as u32, alias: giver as u32 };
            rest[giver] -= 1.0 - rest[taker];
            if rest[giver] < 1.0 {
                large.pop();
                small.push(giver);
            }
        }
        // What is left in either list differs from one by rounding only, and keeps its own column.
        Self(columns)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// An index, chosen by the 64 bits of `random`; `None` when the distribution is empty.
    pub fn index(&self, random: u64) -> Option<usize> {
        let column = ((random >> 32) * self.0.len() as u64) >> 32;
        let Column { keep, alias } = *self.0.get(column as usize)?;
        Some(if random as u32 <= keep { column as usize } else { alias as usize })
    }
}

/// The sequence of SplitMix64, so that one random number serves for several draws.
pub struct Randoms(pub u64);

impl Randoms {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(chances: &[f64]) -> Vec<f64> {
        let (draw, mut randoms) = (Draw::new(chances), Randoms(1));
        let mut counts = vec![0_u32; chances.len()];
        for _ in 0..100_000 {
            counts[draw.index(randoms.next()).expect("not empty")] += 1;
        }
        counts.into_iter().map(|count| f64::from(count) / 100_000.0).collect()
    }

    #[test]
    fn each_index_comes_as_often_as_its_chance() {
        for chances in [&[1.0][..], &[1.0, 1.0], &[100.0, 25.0, 0.1], &[3.0; 100], &[1.0, 2.0, 3.0, 4.0]] {
            let sum: f64 = chances.iter().sum();
            for (share, chance) in shares(chances).iter().zip(chances) {
                assert!((share - chance / sum).abs() < 0.01, "{share} for {chance} of {chances:?}");
            }
        }
    }

    #[test]
    fn nothing_is_drawn_from_nothing() {
        assert!(Draw::new(&[]).is_empty());
        assert_eq!(Draw::new(&[]).index(7), None);
    }
}
