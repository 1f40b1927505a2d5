//! What servers say of themselves, kept once for all that say the same.
//!
//! Whether a client has heard what its next server says is asked at each checkout.  For the same
//! pointer that costs nothing; for two equal maps it costs more than all else that is done there.

use std::cell::RefCell;
use std::rc::Rc;

use flightmode_pooler::guc::Values;

/// As many differ in what clients set in a pool; beyond it the oldest is no longer shared.
const MOST: usize = 16;

/// See the module.
#[derive(Default)]
pub struct Variants {
    known: RefCell<Vec<Rc<Values>>>,
}

impl Variants {
    /// The same values, in the place where others who have the same have them.
    pub fn shared(&self, values: &Rc<Values>) -> Rc<Values> {
        let mut known = self.known.borrow_mut();
        if let Some(found) = known.iter().find(|found| *found == values) {
            return Rc::clone(found);
        }
        if known.len() >= MOST {
            known.remove(0);
        }
        known.push(Rc::clone(values));
        Rc::clone(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(name: &str) -> Rc<Values> {
        Rc::new([(b"application_name".to_vec(), name.into())].into())
    }

    #[test]
    fn who_says_the_same_shares_it_and_the_oldest_is_forgotten() {
        let variants = Variants::default();
        let first = variants.shared(&values("a"));
        assert!(Rc::ptr_eq(&first, &variants.shared(&values("a"))));
        assert!(!Rc::ptr_eq(&first, &variants.shared(&values("b"))));
        for number in 0..MOST {
            variants.shared(&values(&number.to_string()));
        }
        assert!(!Rc::ptr_eq(&first, &variants.shared(&values("a"))));
        assert_eq!(variants.known.borrow().len(), MOST);
    }
}
