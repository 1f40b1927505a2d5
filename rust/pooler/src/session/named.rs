//! Things that a client has under names: nearly always one, without a name.

use std::collections::BTreeMap;

/// See the module.
#[derive(Debug)]
pub(super) struct Named<T> {
    unnamed: Option<T>,
    named: BTreeMap<Box<[u8]>, T>,
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self {
            unnamed: None,
            named: BTreeMap::new(),
        }
    }
}

impl<T> Named<T> {
    pub fn get(&self, name: &[u8]) -> Option<&T> {
        if name.is_empty() {
            self.unnamed.as_ref()
        } else {
            self.named.get(name)
        }
    }

    pub fn insert(&mut self, name: &[u8], thing: T) {
        if name.is_empty() {
            self.unnamed = Some(thing);
        } else {
            self.named.insert(name.into(), thing);
        }
    }

    pub fn remove(&mut self, name: &[u8]) -> Option<T> {
        if name.is_empty() {
            self.unnamed.take()
        } else {
            self.named.remove(name)
        }
    }

    pub fn clear(&mut self) {
        self.unnamed = None;
        // Asked at the end of each transaction, and a map without anything is not cleared for free.
        if !self.named.is_empty() {
            self.named.clear();
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &T)> {
        let unnamed = self.unnamed.iter().map(|thing| (&b""[..], thing));
        unnamed.chain(self.named.iter().map(|(name, thing)| (&**name, thing)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_name_is_replaced_and_listed_like_the_others() {
        let mut named = Named::default();
        for (name, thing) in [(&b""[..], 1), (b"a", 2), (b"", 3)] {
            named.insert(name, thing);
        }
        let all: Vec<_> = named.iter().collect();
        assert_eq!(all, [(&b""[..], &3), (&b"a"[..], &2)]);
        assert_eq!(named.remove(b""), Some(3));
        assert_eq!((named.get(b""), named.get(b"a")), (None, Some(&2)));
        named.clear();
        assert_eq!(named.iter().count(), 0);
    }
}
