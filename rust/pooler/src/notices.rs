//! Warnings that a client does not want, and its proxy has to hear.
//!
//! Intuition: that no standby has confirmed a commit is said by a WARNING and by nothing else.  A
//! client that wants no warnings (`client_min_messages = error`) would be told that all is well.
//! So its server is told `warning`, and what the client does not want ends at the proxy.
//!
//! Rules
//! - the client hears what it would hear without a proxy, but SHOW says `warning`;
//! - only the value is put in its place, and only in a SET or `set_config` that says it plainly.  What
//!   SQL does out of sight (DO, a function, the server's own configuration) is not seen.

use crate::lexer::{spans, Span, Token};

const NAME: &[u8] = b"client_min_messages";
const UNDER: &[u8] = b"min_messages";

/// What a server is told for a client's value of a setting.
pub fn told<'a>(name: &[u8], value: &'a [u8]) -> &'a [u8] {
    if name == NAME && is_deaf(value) {
        b"warning"
    } else {
        value
    }
}

/// Whether a client with this `client_min_messages` wants no warning.
pub fn is_deaf(value: &[u8]) -> bool {
    value.eq_ignore_ascii_case(b"error")
}

/// The text that a server gets instead of `sql`, if that would make it keep its warnings.
pub fn with_warnings(sql: &[u8], standard_strings: bool) -> Option<Vec<u8>> {
    if !names_it(sql) {
        return None;
    }
    let all = spans(sql, standard_strings).ok()?;
    let (mut louder, mut from) = (Vec::new(), 0);
    for at in 0..all.len() {
        let Some(value) = value_at(&all, at) else {
            continue;
        };
        louder.extend_from_slice(&sql[from..value.from]);
        louder.extend_from_slice(b"'warning'");
        from = value.to;
    }
    louder.extend_from_slice(&sql[from..]);
    (from > 0).then_some(louder)
}

/// Whether there is anything to look at: most texts cost no more than this.
fn names_it(sql: &[u8]) -> bool {
    memchr::memchr_iter(b'_', sql).any(|at| {
        let found = sql.get(at + 1..at + 1 + UNDER.len());
        found.is_some_and(|found| found.eq_ignore_ascii_case(UNDER))
    })
}

/// The value of the SET or `set_config` that begins at `at`, if it is for fewer than warnings.
fn value_at<'a, 's>(all: &'a [Span<'s>], at: usize) -> Option<&'a Span<'s>> {
    let is_first = at == 0 || all[at - 1].token == Token::Sign(b';');
    let rest = &all[at + 1..];
    let (name, value) = if all[at].token.is("set") && is_first {
        let scope = rest.first()?.token.is_any(&["session", "local"]);
        let rest = &rest[usize::from(scope)..];
        let is_to = |token: &Token| token.is("to") || *token == Token::Sign(b'=');
        let end = rest.get(3);
        let is_whole = end.is_none_or(|end| end.token == Token::Sign(b';'));
        let is_set = is_whole && is_to(&rest.get(1)?.token);
        (rest.first().filter(|_| is_set)?, rest.get(2)?)
    } else if all[at].token.is_name("set_config") {
        let is_call = rest.first()?.token == Token::Sign(b'(')
            && rest.get(2)?.token == Token::Sign(b',')
            && rest.get(4)?.token == Token::Sign(b',');
        (rest.get(1).filter(|_| is_call)?, rest.get(3)?)
    } else {
        return None;
    };
    let is_it = text(&name.token).is_some_and(|found| found.eq_ignore_ascii_case(NAME));
    let deafens = text(&value.token).is_some_and(|found| is_deaf(&found));
    (is_it && deafens).then_some(value)
}

fn text(token: &Token) -> Option<Vec<u8>> {
    match token {
        Token::Text(text) => Some(text.clone()),
        token => token.name(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn louder(sql: &str) -> Option<String> {
        with_warnings(sql.as_bytes(), true).map(|sql| String::from_utf8(sql).unwrap())
    }

    #[test]
    fn pitfall_46_a_server_never_keeps_its_warnings() {
        for (sql, expected) in [
            (
                "SET client_min_messages=ERROR",
                "SET client_min_messages='warning'",
            ),
            (
                "begin; set local \"Client_Min_Messages\" to 'error'; select 'error'",
                "begin; set local \"Client_Min_Messages\" to 'warning'; select 'error'",
            ),
            (
                "set session client_min_messages to E'error' ; commit",
                "set session client_min_messages to 'warning' ; commit",
            ),
            (
                "select pg_catalog.set_config('client_min_messages', 'error', $1), 1",
                "select pg_catalog.set_config('client_min_messages', 'warning', $1), 1",
            ),
        ] {
            assert_eq!(louder(sql).as_deref(), Some(expected), "{sql}");
        }
    }

    #[test]
    fn what_only_looks_like_it_is_left_alone() {
        for sql in [
            "set client_min_messages to notice",
            "set client_min_messages to warning",
            "update t set client_min_messages = 'error'",
            "select 'set client_min_messages = error'",
            "set log_min_messages = error",
            "set client_min_messages = error, x",
            "show client_min_messages",
            "set client_min_messages = 'error",
            "set client_min_messages",
            "select set_config('client_min_messages'",
        ] {
            assert_eq!(louder(sql), None, "{sql}");
        }
    }
}
