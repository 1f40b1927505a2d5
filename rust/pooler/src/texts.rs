//! Texts of prepared statements that were read before.
//!
//! Intuition: an application has a few hundred texts and sends each of them for ever.  What one
//! says follows from the text alone, so it is read once for all clients of a shard, and a client
//! keeps what was read and not the text.
//!
//! Rule: no more than two generations of a fixed size are kept.  A text that nobody has sent for
//! a generation is read again; a long one always is.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::aftermath::{exit_of, Exit};
use crate::lexer::Unreadable;
use crate::statement::{read, Statement};

/// Texts of one generation.
const GENERATION: usize = 512;
/// A longer text is not kept, in bytes.
const LONGEST: usize = 2 << 10;

/// What a text says.  Of a Parse only the first statement: a server takes no more than one.
#[derive(Debug, PartialEq, Eq)]
pub struct Text {
    pub statements: Vec<Statement>,
    /// How it leaves a failed transaction, if it is prepared and does nothing else.
    pub exit: Option<Exit>,
}

#[derive(Default)]
struct Texts {
    young: HashMap<Box<[u8]>, Rc<Text>>,
    old: HashMap<Box<[u8]>, Rc<Text>>,
}

thread_local! {
    /// What is read follows from the text, so it is no matter who sent it; a thread is a shard.
    static KNOWN: RefCell<Texts> = RefCell::default();
}

/// What a text of a Parse says.  `standard_strings` as for `statement::read`.
pub fn prepared(sql: &[u8], standard_strings: bool) -> Result<Rc<Text>, Unreadable> {
    if !standard_strings || sql.len() > LONGEST {
        return read_whole(sql, standard_strings).map(Rc::new);
    }
    KNOWN.with_borrow_mut(|known| known.find(sql))
}

fn read_whole(sql: &[u8], standard_strings: bool) -> Result<Text, Unreadable> {
    let mut statements = read(sql, standard_strings)?;
    statements.truncate(1);
    let exit = exit_of(sql);
    Ok(Text { statements, exit })
}

impl Texts {
    fn find(&mut self, sql: &[u8]) -> Result<Rc<Text>, Unreadable> {
        if let Some(found) = self.young.get(sql) {
            return Ok(Rc::clone(found));
        }
        let (key, text) = match self.old.remove_entry(sql) {
            Some(known) => known,
            None => (sql.into(), Rc::new(read_whole(sql, true)?)),
        };
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, Rc::clone(&text));
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_once_and_means_what_it_means_when_it_is_read_alone() {
        let sql = b"select set_config('a.b', 'c', false)";
        let first = prepared(sql, true).unwrap();
        assert_eq!(first.statements, read(sql, true).unwrap());
        assert!(Rc::ptr_eq(&first, &prepared(sql, true).unwrap()));
        assert_eq!(prepared(b"COMMIT", true).unwrap().exit, Some(Exit::Commit));
        assert_eq!(prepared(b"'a", true), Err(Unreadable));
    }

    #[test]
    fn pitfall_03_where_a_backslash_escapes_the_same_text_means_something_else() {
        let sql = br"set a.b to '\'; select 1 --'";
        assert_ne!(prepared(sql, true), prepared(sql, false));
    }

    #[test]
    fn no_more_than_two_generations_are_kept_and_what_is_in_use_stays() {
        let mut texts = Texts::default();
        let used = texts.find(b"select 0").unwrap();
        for number in 1..=4 * GENERATION {
            texts.find(format!("select {number}").as_bytes()).unwrap();
            assert!(Rc::ptr_eq(&used, &texts.find(b"select 0").unwrap()));
            assert!(texts.young.len() <= GENERATION && texts.old.len() <= GENERATION);
        }
        let long = vec![b' '; LONGEST + 1];
        prepared(&long, true).unwrap();
        assert!(KNOWN.with_borrow(|known| known.young.is_empty()));
    }
}
