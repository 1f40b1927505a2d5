//! A few pins, in a byte: nearly every client has none, and each has two such sets.

use crate::statement::Pin;

const ALL: [Pin; 8] = [
    Pin::Temporary,
    Pin::AdvisoryLock,
    Pin::HeldCursor,
    Pin::SqlPrepare,
    Pin::Setting,
    Pin::Library,
    Pin::Listen,
    Pin::Unreadable,
];

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pins(u8);

fn bit(pin: Pin) -> u8 {
    1 << pin as u8
}

impl Pins {
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn contains(self, pin: Pin) -> bool {
        self.0 & bit(pin) != 0
    }

    pub fn insert(&mut self, pin: Pin) {
        self.0 |= bit(pin);
    }

    pub fn remove(&mut self, pin: Pin) {
        self.0 &= !bit(pin);
    }

    pub fn extend(&mut self, others: Self) {
        self.0 |= others.0;
    }

    pub fn iter(self) -> impl Iterator<Item = Pin> {
        ALL.into_iter().filter(move |pin| self.contains(*pin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pin_has_its_place() {
        for (at, pin) in ALL.into_iter().enumerate() {
            assert_eq!(pin as usize, at);
            let mut pins = Pins::default();
            pins.insert(pin);
            assert_eq!(pins.iter().collect::<Vec<_>>(), [pin]);
            let mut more = Pins::default();
            more.extend(pins);
            pins.remove(pin);
            assert!(pins.is_empty() && more.contains(pin));
        }
    }
}
