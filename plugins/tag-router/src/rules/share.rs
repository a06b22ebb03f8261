//! Which calls a rule with a share takes.

/// A share of all calls, drawn by the call's own randomness or, when sticky, by what the call belongs to. The
/// rule's name is mixed in, so that two rules take independent shares, and the same ones after a reload.
#[derive(Debug)]
pub struct Share {
    permille: u32,
    sticky: bool,
    seed: u64,
}

impl Share {
    pub fn new(permille: u32, sticky: bool, rule: &str) -> Self {
        // FNV-1a, 64 bits.
        let seed = rule.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self { permille, sticky, seed }
    }

    pub fn is_sticky(&self) -> bool {
        self.sticky
    }

    pub fn takes(&self, random: u64, affinity: u64) -> bool {
        let drawn = mix(self.seed ^ if self.sticky { affinity } else { random });
        // The high 32 bits, scaled to 0-999.
        ((drawn >> 32) * 1000) >> 32 < u64::from(self.permille)
    }
}

/// The finaliser of SplitMix64: every bit of the answer depends on every bit of the question.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(share: &Share) -> usize {
        (0..100_000).filter(|n| share.takes(*n, 0)).count()
    }

    #[test]
    fn the_share_is_kept() {
        assert_eq!(taken(&Share::new(0, false, "a")), 0);
        assert_eq!(taken(&Share::new(1000, false, "a")), 100_000);
        let some = taken(&Share::new(50, false, "a"));
        assert!((4700..=5300).contains(&some), "{some}");
    }

    #[test]
    fn two_rules_draw_independently() {
        let (a, b) = (Share::new(500, false, "a"), Share::new(500, false, "b"));
        let both = (0..100_000).filter(|n| a.takes(*n, 0) && b.takes(*n, 0)).count();
        assert!((24_000..=26_000).contains(&both), "{both}");
    }

    #[test]
    fn a_sticky_share_asks_only_for_the_affinity() {
        let share = Share::new(300, true, "a");
        for affinity in 0..100 {
            let first = share.takes(0, affinity);
            assert!((1..50).all(|random| share.takes(random, affinity) == first));
        }
        assert!((0..100).any(|affinity| share.takes(0, affinity)));
    }
}
