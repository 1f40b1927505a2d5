//! SQL cut into words, texts and signs, as Postgres cuts it.
//!
//! Why by hand: what is decided from it (is this a SET, does this text begin a transaction) must
//! be right for every text that Postgres accepts, in microseconds, and nothing else of the
//! grammar is needed.  What can't be cut is an error, and an error pins the session.
//!
//! Source: Postgres manual, "Lexical Structure"; `scan.l`.

/// A piece of SQL.  Comments and white space are gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// A key word or name without quotes, as it was written.
    Word(&'a [u8]),
    /// A name in double quotes, without them.
    Quoted(Vec<u8>),
    /// A text constant, its value.
    Text(Vec<u8>),
    /// A text constant with escapes whose value is not worked out here.
    Escaped,
    /// A number, as it was written; always without a sign.
    Number(&'a [u8]),
    /// A parameter, `$1`.
    Parameter,
    /// Any other byte: of an operator, a parenthesis, a comma, a semicolon.
    Sign(u8),
}

impl Token<'_> {
    /// Whether it is this key word.
    #[inline]
    pub fn is(&self, word: &str) -> bool {
        matches!(self, Self::Word(found) if found.eq_ignore_ascii_case(word.as_bytes()))
    }

    /// Whether it is one of these key words.
    #[inline]
    pub fn is_any(&self, words: &[&str]) -> bool {
        words.iter().any(|word| self.is(word))
    }

    /// Whether the name that it stands for begins so; `front` is in small letters.
    pub fn name_begins(&self, front: &str) -> bool {
        let front = front.as_bytes();
        match self {
            Self::Word(word) => word
                .get(..front.len())
                .is_some_and(|found| found.eq_ignore_ascii_case(front)),
            Self::Quoted(name) => name.starts_with(front),
            _ => false,
        }
    }

    /// Whether it stands for this name, which is in small letters.
    pub fn is_name(&self, name: &str) -> bool {
        match self {
            Self::Word(_) => self.is(name),
            Self::Quoted(found) => found == name.as_bytes(),
            _ => false,
        }
    }

    /// The name that it stands for: quoted as it is, others in small letters.
    pub fn name(&self) -> Option<Vec<u8>> {
        match self {
            Self::Word(word) => Some(word.to_ascii_lowercase()),
            Self::Quoted(name) => Some(name.clone()),
            _ => None,
        }
    }
}

/// A text that ends inside a constant or comment, or uses what is not read here (`U&''`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// Cut `sql`.  `standard_strings`: a backslash in `''` is a backslash
/// (`standard_conforming_strings`, reported by every server).
pub fn tokens(sql: &[u8], standard_strings: bool) -> Result<Vec<Token<'_>>, Unreadable> {
    let mut lexer = Lexer {
        rest: sql,
        standard_strings,
    };
    // Room for the tokens of most texts, so that it does not grow step by step.
    let mut found = Vec::with_capacity((sql.len() / 5).min(128) + 4);
    loop {
        lexer.skip_blank()?;
        if lexer.rest.is_empty() {
            return Ok(found);
        }
        found.push(lexer.token()?);
    }
}

/// A token and where it stands in the text.
pub struct Span<'a> {
    pub token: Token<'a>,
    pub from: usize,
    pub to: usize,
}

/// As [`tokens`], with their places.
pub fn spans(sql: &[u8], standard_strings: bool) -> Result<Vec<Span<'_>>, Unreadable> {
    let mut lexer = Lexer {
        rest: sql,
        standard_strings,
    };
    let mut found = Vec::new();
    loop {
        lexer.skip_blank()?;
        if lexer.rest.is_empty() {
            return Ok(found);
        }
        let from = sql.len() - lexer.rest.len();
        let token = lexer.token()?;
        let to = sql.len() - lexer.rest.len();
        found.push(Span { token, from, to });
    }
}

struct Lexer<'a> {
    rest: &'a [u8],
    standard_strings: bool,
}

impl<'a> Lexer<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    fn take_while(&mut self, is_part: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|byte| !is_part(*byte));
        self.take(end.unwrap_or(self.rest.len()))
    }

    fn skip_blank(&mut self) -> Result<(), Unreadable> {
        loop {
            self.take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c));
            if self.rest.starts_with(b"--") {
                self.take_while(|byte| byte != b'\n' && byte != b'\r');
            } else if self.rest.starts_with(b"/*") {
                self.skip_comment()?;
            } else {
                return Ok(());
            }
        }
    }

    /// Block comments nest.
    fn skip_comment(&mut self) -> Result<(), Unreadable> {
        let mut depth = 0usize;
        loop {
            if self.rest.starts_with(b"/*") {
                depth += 1;
                self.take(2);
            } else if self.rest.starts_with(b"*/") {
                depth -= 1;
                self.take(2);
                if depth == 0 {
                    return Ok(());
                }
            } else if self.take(1).is_empty() {
                return Err(Unreadable);
            }
        }
    }

    fn token(&mut self) -> Result<Token<'a>, Unreadable> {
        let first = self.rest[0];
        let second = self.rest.get(1).copied().unwrap_or(0);
        match (first, second) {
            (b'\'', _) => self.text(!self.standard_strings),
            (b'e' | b'E', b'\'') => {
                self.take(1);
                self.text(true)
            }
            // Bits and national texts: the value matters to nobody here.
            (b'b' | b'B' | b'x' | b'X' | b'n' | b'N', b'\'') => {
                self.take(1);
                self.text(first.eq_ignore_ascii_case(&b'n') && !self.standard_strings)
            }
            (b'u' | b'U', b'&') if matches!(self.rest.get(2), Some(b'\'' | b'"')) => {
                Err(Unreadable)
            }
            (b'"', _) => self.quoted(),
            (b'$', b'0'..=b'9') => {
                self.take(1);
                self.take_while(|byte| byte.is_ascii_digit());
                Ok(Token::Parameter)
            }
            (b'$', _) => self.dollar_text(),
            (b'0'..=b'9', _) | (b'.', b'0'..=b'9') => Ok(Token::Number(self.number())),
            (byte, _) if starts_word(byte) => Ok(Token::Word(self.take_while(is_in_word))),
            (byte, _) => {
                self.take(1);
                Ok(Token::Sign(byte))
            }
        }
    }

    fn text(&mut self, backslashes: bool) -> Result<Token<'a>, Unreadable> {
        self.take(1);
        let (mut value, mut is_known) = (Vec::new(), true);
        loop {
            match self.take(1) {
                b"'" if self.rest.first() == Some(&b'\'') => value.extend(self.take(1)),
                b"'" if is_known => return Ok(Token::Text(value)),
                b"'" => return Ok(Token::Escaped),
                b"\\" if backslashes => match self.take(1) {
                    b"'" => value.push(b'\''),
                    b"\\" => value.push(b'\\'),
                    [] => return Err(Unreadable),
                    _ => is_known = false,
                },
                [] => return Err(Unreadable),
                byte => value.extend(byte),
            }
        }
    }

    fn quoted(&mut self) -> Result<Token<'a>, Unreadable> {
        self.take(1);
        let mut name = Vec::new();
        loop {
            match self.take(1) {
                b"\"" if self.rest.first() == Some(&b'"') => name.extend(self.take(1)),
                b"\"" => return Ok(Token::Quoted(name)),
                [] => return Err(Unreadable),
                byte => name.extend(byte),
            }
        }
    }

    fn dollar_text(&mut self) -> Result<Token<'a>, Unreadable> {
        let whole = self.rest;
        self.take(1);
        if self.rest.first().is_some_and(|byte| starts_word(*byte)) {
            self.take_while(|byte| is_in_word(byte) && byte != b'$');
        }
        if self.rest.first() != Some(&b'$') {
            self.rest = &whole[1..];
            return Ok(Token::Sign(b'$'));
        }
        self.take(1);
        let mark = &whole[..whole.len() - self.rest.len()];
        let end = self
            .rest
            .windows(mark.len())
            .position(|window| window == mark);
        let value = self.take(end.ok_or(Unreadable)?).to_vec();
        self.take(mark.len());
        Ok(Token::Text(value))
    }

    /// Digits, a point, an exponent.  Junk after a number is Postgres' to refuse.
    fn number(&mut self) -> &'a [u8] {
        let whole = self.rest;
        self.take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_'));
        let taken = &whole[..whole.len() - self.rest.len()];
        let has_exponent = matches!(taken.last(), Some(b'e' | b'E'));
        if has_exponent && matches!(self.rest.first(), Some(b'+' | b'-')) {
            self.take(1);
            self.take_while(|byte| byte.is_ascii_digit());
        }
        &whole[..whole.len() - self.rest.len()]
    }
}

fn starts_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

pub fn is_in_word(byte: u8) -> bool {
    starts_word(byte) || byte.is_ascii_digit() || byte == b'$'
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(sql: &str) -> Vec<Token<'_>> {
        tokens(sql.as_bytes(), true).unwrap()
    }

    fn text(value: &str) -> Token<'static> {
        Token::Text(value.as_bytes().to_vec())
    }

    #[test]
    fn words_texts_and_signs() {
        let found = cut("SELECT \"A\"\"b\", 'it''s', $1, 1.5e-3;");
        assert_eq!(
            found,
            [
                Token::Word(b"SELECT"),
                Token::Quoted(b"A\"b".to_vec()),
                Token::Sign(b','),
                text("it's"),
                Token::Sign(b','),
                Token::Parameter,
                Token::Sign(b','),
                Token::Number(b"1.5e-3"),
                Token::Sign(b';'),
            ]
        );
    }

    #[test]
    fn pitfall_03_a_backslash_ends_a_text_or_not_as_the_server_says() {
        let sql = br"'a\' ; set x to y --'";
        assert!(
            tokens(sql, true).unwrap().len() > 3,
            "the text ends at the backslash"
        );
        assert_eq!(tokens(sql, false), Ok(vec![text("a' ; set x to y --")]));
        assert_eq!(cut(r"E'\'x'"), [text("'x")]);
    }

    #[test]
    fn pitfall_03_comments_nest_and_dollar_texts_hide_everything() {
        assert_eq!(cut("/* a /* b */ set */ select--x\n1").len(), 2);
        assert_eq!(cut("$a$ $b$ ' $a$"), [text(" $b$ ' ")]);
        assert_eq!(cut("$$;$$"), [text(";")]);
        assert_eq!(cut("a$b$c"), [Token::Word(b"a$b$c")]);
    }

    #[test]
    fn what_does_not_end_is_unreadable() {
        for sql in ["'a", "\"a", "/* /* */", "$a$ $b$", "E'\\", "U&'x'"] {
            assert_eq!(tokens(sql.as_bytes(), true), Err(Unreadable), "{sql}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_cut_or_unreadable(
            sql in proptest::collection::vec(
                prop_oneof![proptest::sample::select(&b"'\"$-/*\\;eE aU&1."[..]), any::<u8>()],
                0..60,
            ),
            standard: bool,
        ) {
            let _ = tokens(&sql, standard);
        }

        #[test]
        fn any_text_comes_back_from_its_quotes(value in ".*") {
            let sql = format!("'{}'", value.replace('\'', "''"));
            prop_assert_eq!(tokens(sql.as_bytes(), true), Ok(vec![text(&value)]));
        }
    }
}
