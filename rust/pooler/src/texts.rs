//! Texts that were read before.
//!
//! Intuition: an application has a few hundred texts and sends each of them for ever.  What one
//! says follows from the text alone, so it is read once for all clients of a shard, and a client
//! keeps what was read and not the text.
//!
//! Rules
//! - no more than two generations of a fixed size are kept.  A text that nobody has sent for a
//!   generation is read again; a long one always is;
//! - a simple query has its values among its words, so it is known by its shape: the text with
//!   each whole number made the same one.  That is done only where what was read can't depend on
//!   the number, which is everywhere but in a constant, in a name and in the value of a SET.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use foldhash::fast::RandomState;

use crate::aftermath::{exit_of, Exit};
use crate::lexer::{is_in_word, Unreadable};
use crate::statement::{read, Said, Statement};

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

/// Two generations of what was read, by its key.  Their hash is a quick one with a seed of its own: a
/// text is looked up for each query, and whoever met it with others would fill one generation.
#[derive(Default)]
struct Texts {
    young: HashMap<Box<[u8]>, Rc<Text>, RandomState>,
    old: HashMap<Box<[u8]>, Rc<Text>, RandomState>,
}

thread_local! {
    /// What is read follows from the text, so it is no matter who sent it; a thread is a shard.
    static PREPARED: RefCell<Texts> = RefCell::default();
    static QUERIED: RefCell<Shapes> = RefCell::default();
}

/// What a text of a Parse says.  `standard_strings` as for `statement::read`.
pub fn prepared(sql: &[u8], standard_strings: bool) -> Result<Rc<Text>, Unreadable> {
    if !standard_strings || sql.len() > LONGEST {
        return read_prepared(sql, standard_strings).map(Rc::new);
    }
    PREPARED.with_borrow_mut(|known| {
        if let Some(found) = known.find(sql) {
            return Ok(found);
        }
        let text = Rc::new(read_prepared(sql, true)?);
        known.keep(sql, &text);
        Ok(text)
    })
}

/// What a text of a simple query says.
pub fn queried(sql: &[u8], standard_strings: bool) -> Result<Rc<Text>, Unreadable> {
    QUERIED.with_borrow_mut(|shapes| shapes.find(sql, standard_strings))
}

fn read_prepared(sql: &[u8], standard_strings: bool) -> Result<Text, Unreadable> {
    let mut statements = read(sql, standard_strings)?;
    statements.truncate(1);
    let exit = exit_of(sql);
    Ok(Text { statements, exit })
}

fn read_queried(sql: &[u8], standard_strings: bool) -> Result<Text, Unreadable> {
    Ok(Text {
        statements: read(sql, standard_strings)?,
        exit: None,
    })
}

impl Texts {
    fn find(&mut self, key: &[u8]) -> Option<Rc<Text>> {
        if let Some(found) = self.young.get(key) {
            return Some(Rc::clone(found));
        }
        let (key, text) = self.old.remove_entry(key)?;
        self.put(key, Rc::clone(&text));
        Some(text)
    }

    fn keep(&mut self, key: &[u8], text: &Rc<Text>) {
        self.put(key.into(), Rc::clone(text));
    }

    fn put(&mut self, key: Box<[u8]>, text: Rc<Text>) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, text);
    }
}

#[derive(Default)]
struct Shapes {
    /// That of the text at hand.
    shape: Vec<u8>,
    known: Texts,
}

impl Shapes {
    fn find(&mut self, sql: &[u8], standard_strings: bool) -> Result<Rc<Text>, Unreadable> {
        if sql.len() > LONGEST || !shape_of(sql, &mut self.shape) {
            return read_queried(sql, standard_strings).map(Rc::new);
        }
        if let Some(found) = self.known.find(&self.shape) {
            return Ok(found);
        }
        let text = Rc::new(read_queried(sql, standard_strings)?);
        let has_value = |statement: &Statement| {
            matches!(statement.said, Said::Set { .. } | Said::SetLocal { .. })
        };
        if !text.statements.iter().any(has_value) {
            self.known.keep(&self.shape, &text);
        }
        Ok(text)
    }
}

/// The shape of a text, and whether it has one: a text with a quote or a dollar in it may have
/// constants and names that are no words, and is not worth the doubt.
///
/// Without those a text is words, signs, numbers and comments.  A run of digits that neither a
/// word nor a point touches is a number of its own or stands in a comment.
fn shape_of(sql: &[u8], shape: &mut Vec<u8>) -> bool {
    shape.clear();
    if memchr::memchr3(b'\'', b'"', b'$', sql).is_some() {
        return false;
    }
    let touches = |byte: &u8| is_in_word(*byte) || *byte == b'.';
    let (mut from, mut at) = (0, 0);
    while let Some(first) = first_digit(sql, at) {
        let digits = sql[first..].iter().take_while(|byte| byte.is_ascii_digit());
        at = first + digits.count();
        let before = first.checked_sub(1).and_then(|before| sql.get(before));
        if !before.is_some_and(touches) && !sql.get(at).is_some_and(touches) {
            shape.extend_from_slice(&sql[from..first]);
            shape.push(b'0');
            from = at;
        }
    }
    shape.extend_from_slice(&sql[from..]);
    true
}

/// Where the first digit is from `at` on.  Most of a text has none, so it is looked through in
/// stretches that a processor compares at once.
fn first_digit(sql: &[u8], mut at: usize) -> Option<usize> {
    const STRETCH: usize = 16;
    let has_digit = |bytes: &[u8; STRETCH]| {
        let digits = bytes.map(|byte| byte.is_ascii_digit());
        digits.into_iter().fold(false, |has, is| has | is)
    };
    while sql[at..]
        .first_chunk()
        .is_some_and(|bytes| !has_digit(bytes))
    {
        at += STRETCH;
    }
    let ahead = sql[at..].iter().position(u8::is_ascii_digit)?;
    Some(at + ahead)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
        let text = Rc::new(read_prepared(b"select 0", true).unwrap());
        texts.keep(b"used", &text);
        for number in 1..=4 * GENERATION {
            texts.keep(format!("select {number}").as_bytes(), &text);
            assert!(texts.find(b"used").is_some());
            assert!(texts.young.len() <= GENERATION && texts.old.len() <= GENERATION);
        }
        assert!(texts.find(b"select 1").is_none());
        let long = vec![b' '; LONGEST + 1];
        prepared(&long, true).unwrap();
        assert!(PREPARED.with_borrow(|known| known.young.is_empty()));
    }

    fn shape(sql: &str) -> Option<String> {
        let mut shape = Vec::new();
        let has_one = shape_of(sql.as_bytes(), &mut shape);
        has_one.then(|| String::from_utf8(shape).unwrap())
    }

    #[test]
    fn a_query_is_known_by_its_words_and_not_by_its_numbers() {
        let one = shape("SELECT a FROM t1 WHERE id = 42 AND x IN (7,8)");
        let expected = "SELECT a FROM t1 WHERE id = 0 AND x IN (0,0)";
        assert_eq!(one.as_deref(), Some(expected));
        let mut shapes = Shapes::default();
        let first = shapes.find(b"select 1, md5(x)", true).unwrap();
        let again = shapes.find(b"select 22, md5(x)", true).unwrap();
        assert!(Rc::ptr_eq(&first, &again));
        let other = shapes.find(b"select 22, md6(x)", true).unwrap();
        assert_ne!(first, other, "md5 changes nothing, md6 may");
    }

    #[test]
    fn a_number_that_matters_is_part_of_what_a_text_says() {
        for sql in ["select 1.5", "select 1e5", "select t1.a2", "savepoint s1"] {
            assert_eq!(shape(sql).as_deref(), Some(sql));
        }
        for sql in [
            "select '1'",
            "select \"t 1\"",
            "select $1",
            "select $a$ 1 $a$",
        ] {
            assert_eq!(shape(sql), None);
        }
        let mut shapes = Shapes::default();
        for value in [10, 20] {
            let sql = format!("select 1; set statement_timeout = {value}");
            let text = shapes.find(sql.as_bytes(), true).unwrap();
            assert_eq!(text.statements, read(sql.as_bytes(), true).unwrap());
        }
    }

    proptest! {
        #[test]
        fn what_is_known_of_a_query_is_what_it_says(
            texts in proptest::collection::vec(
                proptest::collection::vec(
                    proptest::sample::select(&[
                        "select", "set", "a", "b1", "begin", "commit", "set_config", "nextval",
                        "md5", "1", "2", "31", "1.5", ".5", "3e", "-", "--", "/*", "*/", "\n",
                        "+", "(", ")", ",", ";", "=", "to", "'", "\"", "$", "$1", "_", ".", "e",
                        "local", "savepoint", "temp", "into", "deallocate", "reset", " ", "\\",
                    ][..]),
                    0..8,
                ),
                1..40,
            ),
            separator in proptest::sample::select(&["", " "][..]),
            standard: bool,
        ) {
            let mut shapes = Shapes::default();
            for words in &texts {
                let sql = words.join(separator);
                let found = shapes.find(sql.as_bytes(), standard);
                let found = found.map(|text| text.statements.clone());
                prop_assert_eq!(found, read(sql.as_bytes(), standard), "{}", sql);
            }
        }
    }
}
