//! Maps whose keys are numbers that we have given ourselves.
//!
//! Nobody outside chooses such a number, so it needs no hash that an attacker can't foresee: one
//! multiplication spreads it well enough.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map by numbers of our own: of a client, a server, a statement.
pub type ByNumber<K, V> = HashMap<K, V, BuildHasherDefault<Spread>>;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        // A map looks at the highest bits and at the lowest ones; of a product the high are good.
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // The golden ratio in 64 bits.
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_spread_in_the_high_and_in_the_low_bits() {
        let hash = |number: u64| {
            let mut spread = Spread::default();
            spread.write_u64(number);
            spread.finish()
        };
        for step in [1, 128, 1 << 20] {
            let distinct = |part: fn(u64) -> u64| {
                let parts = (0..128).map(|number| part(hash(number * step)));
                parts.collect::<std::collections::BTreeSet<_>>().len()
            };
            assert!(distinct(|hash| hash >> 57) > 64);
            assert!(distinct(|hash| hash & 0x7f) > 64);
        }
    }
}
