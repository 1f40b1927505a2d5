//! What a text of SQL says that matters to a session: transactions, settings, what binds a client
//! to its server, and whether it can have an effect.
//!
//! Rule: whatever is not recognised to the last token is not guessed.  An odd SET pins the
//! session; an odd statement may write.  Being wrong in that direction costs a server, in the
//! other it costs data.

use crate::lexer::{tokens, Token, Unreadable};
use crate::listening::{given_up, named, Channel};
use crate::unit::Effect;

/// Why a client keeps its server after its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pin {
    /// A temporary table.
    Temporary,
    /// An advisory lock of the session.
    AdvisoryLock,
    /// A cursor WITH HOLD.
    HeldCursor,
    /// PREPARE in SQL.
    SqlPrepare,
    /// A setting that was changed in a way that can't be followed.
    Setting,
    /// LOAD.
    Library,
    /// LISTEN at its own server: with session pooling, in a block, or not to be shared.
    Listen,
    /// SQL that can't be read.
    Unreadable,
}

/// What one statement says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Begin,
    Commit,
    Rollback,
    Savepoint(Vec<u8>),
    RollbackTo(Vec<u8>),
    Release(Vec<u8>),
    /// Two-phase: the transaction's fate leaves this session.
    PrepareTransaction,
    /// A setting of the session, its value as `set_config` takes it; `None`: its default.
    Set {
        name: Vec<u8>,
        value: Option<Vec<u8>>,
    },
    /// The same, until the transaction ends.
    SetLocal {
        name: Vec<u8>,
        value: Option<Vec<u8>>,
    },
    /// What only the transaction has, in which it is said.
    SetTransaction,
    ResetAll,
    DiscardAll,
    /// DEALLOCATE of one, or of all.
    Deallocate(Option<Vec<u8>>),
    Listen(Channel),
    Unlisten(Option<Channel>),
    Notify,
    /// From here the client keeps its server.
    Pins(Pin),
    /// A reason to keep it is gone.
    Unpins(Pin),
    Other,
}

/// A statement and what it can do to the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    pub said: Said,
    pub effect: Effect,
}

/// The statements of a text, in their order; none for an empty one.
pub fn read(sql: &[u8], standard_strings: bool) -> Result<Vec<Statement>, Unreadable> {
    let all = tokens(sql, standard_strings)?;
    if has_sql_body(&all) {
        // Where it ends, and what comes before and after it, would be guessed.
        return Ok(vec![Statement {
            said: Said::Pins(Pin::Unreadable),
            effect: Effect::MayWrite,
        }]);
    }
    let mut depth = 0usize;
    let pieces = all.split(|token| {
        match token {
            Token::Sign(b'(') => depth += 1,
            Token::Sign(b')') => depth = depth.saturating_sub(1),
            // `CREATE RULE … DO (a; b)`: those inside end no statement.
            Token::Sign(b';') => return depth == 0,
            _ => (),
        }
        false
    });
    Ok(pieces
        .filter(|piece| !piece.is_empty())
        .map(read_one)
        .collect())
}

/// `CREATE FUNCTION … BEGIN ATOMIC a; b; END`: these semicolons end no statement.
fn has_sql_body(all: &[Token]) -> bool {
    all.windows(2)
        .any(|pair| pair[0].is("begin") && pair[1].is("atomic"))
}

fn read_one(words: &[Token]) -> Statement {
    let said = said(words);
    let effect = match &said {
        Said::Other | Said::Notify | Said::Unpins(_) => effect(words),
        Said::Pins(_) | Said::Commit | Said::PrepareTransaction => Effect::MayWrite,
        _ => Effect::ReadOnly,
    };
    Statement { said, effect }
}

/// The longest word that begins a statement which `said` knows: `deallocate`.
const LONGEST_FIRST: usize = 10;

fn said(words: &[Token]) -> Said {
    let (first, rest) = (&words[0], &words[1..]);
    let Token::Word(word) = first else {
        return Said::Other;
    };
    let mut small = [0; LONGEST_FIRST];
    let Some(small) = small.get_mut(..word.len()) else {
        return binding(words);
    };
    small.copy_from_slice(word);
    small.make_ascii_lowercase();
    match &*small {
        b"begin" | b"start" => Said::Begin,
        b"commit" | b"end" if has(rest, "prepared") => Said::Other,
        b"commit" | b"end" => Said::Commit,
        b"rollback" | b"abort" => rollback(rest),
        b"savepoint" => last_name(rest).map_or(Said::Other, Said::Savepoint),
        b"release" => last_name(rest).map_or(Said::Other, Said::Release),
        b"prepare" if has(&rest[..rest.len().min(1)], "transaction") => Said::PrepareTransaction,
        b"prepare" => Said::Pins(Pin::SqlPrepare),
        b"set" => set(rest),
        b"reset" => reset(rest),
        b"discard" => discard(rest),
        b"deallocate" => deallocate(rest),
        b"listen" => named(rest).map_or(Said::Pins(Pin::Listen), Said::Listen),
        b"unlisten" => given_up(rest).map_or(Said::Other, Said::Unlisten),
        b"notify" => Said::Notify,
        b"close" if rest.len() == 1 && rest[0].is("all") => Said::Unpins(Pin::HeldCursor),
        b"do" => block(rest).map_or(Said::Other, Said::Pins),
        b"load" => Said::Pins(Pin::Library),
        b"select" => set_config(rest).unwrap_or_else(|| binding(words)),
        _ => binding(words),
    }
}

fn rollback(rest: &[Token]) -> Said {
    if has(rest, "prepared") {
        Said::Other
    } else if has(rest, "to") {
        last_name(rest).map_or(Said::Other, Said::RollbackTo)
    } else {
        Said::Rollback
    }
}

/// `SELECT set_config('name', 'value', false)` and nothing more: how some drivers say SET.
fn set_config(rest: &[Token]) -> Option<Said> {
    let rest = match rest {
        [schema, Token::Sign(b'.'), rest @ ..] if schema.is("pg_catalog") => rest,
        rest => rest,
    };
    let [function, Token::Sign(b'('), Token::Text(name), Token::Sign(b','), Token::Text(value), Token::Sign(b','), local, Token::Sign(b')')] =
        rest
    else {
        return None;
    };
    if !function.is("set_config") {
        return None;
    }
    let said = set_to(name.to_ascii_lowercase(), Some(value.clone()));
    if local.is("true") {
        return Some(until_the_end(said));
    }
    local.is("false").then_some(said)
}

/// A setting and its value, unless it is one of those that no session has.
fn set_to(name: Vec<u8>, value: Option<Vec<u8>>) -> Said {
    match name.as_slice() {
        b"transaction_isolation" | b"transaction_read_only" | b"transaction_deferrable" => {
            Said::SetTransaction
        }
        // It can be neither asked for nor taken back.
        b"seed" => Said::Pins(Pin::Setting),
        _ => Said::Set { name, value },
    }
}

/// What `SET LOCAL` makes of what SET would do.
fn until_the_end(said: Said) -> Said {
    match said {
        Said::Set { name, value } => Said::SetLocal { name, value },
        said => said,
    }
}

/// What creates something that lives in the session, anywhere in the statement.
fn binding(words: &[Token]) -> Said {
    if makes_temporary(words) {
        return Said::Pins(Pin::Temporary);
    }
    if words[0].is("declare")
        && words
            .windows(2)
            .any(|two| two[0].is("with") && two[1].is("hold"))
    {
        return Said::Pins(Pin::HeldCursor);
    }
    if words.iter().any(is_session_lock) {
        return Said::Pins(Pin::AdvisoryLock);
    }
    if words.iter().any(|token| token.is_name("set_config")) {
        return Said::Pins(Pin::Setting);
    }
    let unlocks = |token: &Token| token.is("pg_advisory_unlock_all");
    if words[0].is("select") && words.len() == 4 && unlocks(&words[1]) {
        return Said::Unpins(Pin::AdvisoryLock);
    }
    if words.iter().any(|token| token.is_name("pg_notify")) {
        return Said::Notify;
    }
    Said::Other
}

/// `CREATE … TEMP`, `INTO TEMP`, or the schema of temporary things; not a column of that name.
fn makes_temporary(words: &[Token]) -> bool {
    const SCOPE: [&str; 4] = ["or", "replace", "local", "global"];
    let is_temporary = |rest: &[Token]| {
        let kind = rest.iter().find(|token| !token.is_any(&SCOPE));
        kind.is_some_and(|kind| kind.is_any(&["temp", "temporary"]))
    };
    let into = words.iter().position(|token| token.is("into"));
    let selects_into = !words[0].is("insert") && !words[0].is("merge");
    (words[0].is("create") && is_temporary(&words[1..]))
        || (selects_into && into.is_some_and(|at| is_temporary(&words[at + 1..])))
        || words
            .windows(2)
            .any(|two| two[0].is_name("pg_temp") && two[1] == Token::Sign(b'.'))
}

/// What a DO block leaves in the session, as far as its body says so plainly; SQL that it puts
/// together is not read.
fn block(rest: &[Token]) -> Option<Pin> {
    let body = rest.iter().find_map(|token| match token {
        Token::Text(body) => Some(body),
        _ => None,
    });
    let Some(Ok(words)) = body.map(|body| tokens(body, true)) else {
        return Some(Pin::Unreadable);
    };
    (0..words.len()).find_map(|at| {
        let word = &words[at];
        let begins = at.checked_sub(1).is_none_or(|before| {
            let before = &words[before];
            *before == Token::Sign(b';') || before.is_any(&["begin", "then", "else", "loop"])
        });
        if word.is_any(&["temp", "temporary"]) || word.is_name("pg_temp") {
            Some(Pin::Temporary)
        } else if is_session_lock(word) {
            Some(Pin::AdvisoryLock)
        } else if word.is_name("set_config") || (begins && word.is_any(&["set", "reset"])) {
            Some(Pin::Setting)
        } else if begins && word.is("listen") {
            Some(Pin::Listen)
        } else if begins && word.is("load") {
            Some(Pin::Library)
        } else {
            word.is("execute").then_some(Pin::Unreadable)
        }
    })
}

fn is_session_lock(token: &Token) -> bool {
    token.name_begins("pg_advisory_lock") || token.name_begins("pg_try_advisory_lock")
}

fn set(rest: &[Token]) -> Said {
    match rest {
        [first, ..] if first.is_any(&["transaction", "constraints"]) => Said::SetTransaction,
        [first, rest @ ..] if first.is("local") => until_the_end(set(rest)),
        [first, second, ..] if first.is("session") && second.is("characteristics") => {
            Said::Pins(Pin::Setting)
        }
        [first, second, value @ ..] if first.is("session") && second.is("authorization") => {
            set_value(b"session_authorization", value)
        }
        [first, rest @ ..] if first.is("session") => set_session(rest),
        rest => set_session(rest),
    }
}

fn set_session(rest: &[Token]) -> Said {
    match rest {
        [first, second, value @ ..] if first.is("time") && second.is("zone") => {
            set_time_zone(value)
        }
        [first, value @ ..] if first.is("names") => set_value(b"client_encoding", value),
        [first, value @ ..] if first.is("role") && !is_equals(value) => set_value(b"role", value),
        [first, value @ ..] if first.is("schema") => set_value(b"search_path", value),
        rest => {
            let end = rest
                .iter()
                .position(|token| is_equals(std::slice::from_ref(token)));
            match end.and_then(|end| Some((dotted(&rest[..end])?, &rest[end + 1..]))) {
                Some((name, value)) => set_value(&name, value),
                None => Said::Pins(Pin::Setting),
            }
        }
    }
}

fn set_time_zone(value: &[Token]) -> Said {
    match value {
        [local] if local.is("local") => set_to(b"timezone".to_vec(), None),
        value => set_value(b"timezone", value),
    }
}

fn is_equals(tokens: &[Token]) -> bool {
    tokens
        .first()
        .is_some_and(|token| token.is("to") || *token == Token::Sign(b'='))
}

/// `name` or `name.name`, in small letters: settings' names have no case.
fn dotted(tokens: &[Token]) -> Option<Vec<u8>> {
    match tokens {
        [name] => Some(name.name()?.to_ascii_lowercase()),
        [class, Token::Sign(b'.'), name] => Some(
            [class.name()?, name.name()?]
                .join(&b'.')
                .to_ascii_lowercase(),
        ),
        _ => None,
    }
}

fn set_value(name: &[u8], value: &[Token]) -> Said {
    let name = name.to_vec();
    if let [token] = value {
        let is_none = name == b"role" && token.is("none");
        if token.is("default") || is_none {
            return set_to(name, None);
        }
    }
    match flatten(&name, value) {
        Some(flat) => set_to(name, Some(flat)),
        None => Said::Pins(Pin::Setting),
    }
}

/// A list of values as `set_config` takes it (`flatten_set_variable_args`).
fn flatten(name: &[u8], value: &[Token]) -> Option<Vec<u8>> {
    const QUOTED_LISTS: [&[u8]; 4] = [
        b"search_path",
        b"temp_tablespaces",
        b"session_preload_libraries",
        b"local_preload_libraries",
    ];
    let is_quoted = QUOTED_LISTS.contains(&name);
    let elements = value.split(|token| *token == Token::Sign(b','));
    let texts: Option<Vec<Vec<u8>>> = elements
        .map(|element| match element {
            [Token::Sign(b'-'), Token::Number(digits)] => Some([b"-", *digits].concat()),
            [Token::Number(digits)] | [Token::Sign(b'+'), Token::Number(digits)] => {
                Some(digits.to_vec())
            }
            [Token::Text(text)] if is_quoted => Some(quote_name(text)),
            [Token::Text(text)] => Some(text.clone()),
            [word] if is_quoted => word.name().map(|name| quote_name(&name)),
            [word] => word.name(),
            _ => None,
        })
        .collect();
    texts.map(|texts| texts.join(&b", "[..]))
}

fn quote_name(name: &[u8]) -> Vec<u8> {
    let mut quoted = vec![b'"'];
    for byte in name {
        quoted.push(*byte);
        if *byte == b'"' {
            quoted.push(b'"');
        }
    }
    quoted.push(b'"');
    quoted
}

fn reset(rest: &[Token]) -> Said {
    let default = |name: &[u8]| set_to(name.to_vec(), None);
    match rest {
        [all] if all.is("all") => Said::ResetAll,
        [time, zone] if time.is("time") && zone.is("zone") => default(b"timezone"),
        [first, second] if first.is("session") && second.is("authorization") => {
            default(b"session_authorization")
        }
        [first, ..] if first.is("transaction") => Said::SetTransaction,
        rest => dotted(rest).map_or(Said::Pins(Pin::Setting), |name| default(&name)),
    }
}

fn discard(rest: &[Token]) -> Said {
    match rest {
        [what] if what.is("all") => Said::DiscardAll,
        [what] if what.is_any(&["temp", "temporary"]) => Said::Unpins(Pin::Temporary),
        _ => Said::Other,
    }
}

fn deallocate(rest: &[Token]) -> Said {
    let rest = match rest {
        [first, rest @ ..] if first.is("prepare") && !rest.is_empty() => rest,
        rest => rest,
    };
    match rest {
        [all] if all.is("all") => Said::Deallocate(None),
        [name] => name
            .name()
            .map_or(Said::Other, |name| Said::Deallocate(Some(name))),
        _ => Said::Other,
    }
}

fn has(words: &[Token], word: &str) -> bool {
    words.iter().any(|token| token.is(word))
}

fn last_name(words: &[Token]) -> Option<Vec<u8>> {
    words.last().and_then(Token::name)
}

/// Whether a text only reads.  A view or an operator of the user's own that writes is not seen:
/// see [`Effect::LooksRead`].
fn effect(words: &[Token]) -> Effect {
    if words[0].is("show") {
        return Effect::ReadOnly;
    }
    let begins = words[0].is_any(&["select", "values", "table", "with"]);
    let writes = words.iter().any(|token| {
        token.is_any(&[
            "insert", "update", "delete", "merge", "into", "call", "nextval", "setval",
        ])
    });
    if begins && !writes && (0..words.len()).all(|at| is_harmless_call(words, at)) {
        Effect::LooksRead
    } else {
        Effect::MayWrite
    }
}

/// Whether the token at `at`, if it is called, is a function that is known and changes nothing.
fn is_harmless_call(words: &[Token], at: usize) -> bool {
    let is_called = words.get(at + 1) == Some(&Token::Sign(b'('));
    let is_name = matches!(words[at], Token::Word(_) | Token::Quoted(_));
    let is_qualified = at > 0 && words[at - 1] == Token::Sign(b'.');
    !is_called || !is_name || (!is_qualified && words[at].is_any(HARMLESS))
}

/// Key words that stand before a parenthesis, types with a length, and functions of Postgres that
/// are stable or immutable.
const HARMLESS: &[&str] = &[
    "all",
    "and",
    "any",
    "array",
    "as",
    "between",
    "by",
    "case",
    "distinct",
    "else",
    "except",
    "exists",
    "filter",
    "from",
    "group",
    "having",
    "in",
    "intersect",
    "is",
    "join",
    "lateral",
    "like",
    "ilike",
    "limit",
    "materialized",
    "not",
    "offset",
    "on",
    "or",
    "over",
    "recursive",
    "rollup",
    "cube",
    "select",
    "sets",
    "some",
    "then",
    "union",
    "using",
    "values",
    "when",
    "where",
    "with",
    "within",
    "bit",
    "char",
    "character",
    "decimal",
    "interval",
    "numeric",
    "time",
    "timestamp",
    "timestamptz",
    "varchar",
    "abs",
    "age",
    "array_agg",
    "array_length",
    "avg",
    "bool_and",
    "bool_or",
    "btrim",
    "cast",
    "ceil",
    "coalesce",
    "concat",
    "concat_ws",
    "count",
    "date",
    "date_part",
    "date_trunc",
    "dense_rank",
    "exp",
    "extract",
    "first_value",
    "floor",
    "format",
    "generate_series",
    "greatest",
    "json_agg",
    "json_build_object",
    "jsonb_agg",
    "jsonb_build_object",
    "lag",
    "last_value",
    "lead",
    "least",
    "left",
    "length",
    "ln",
    "lower",
    "ltrim",
    "make_interval",
    "max",
    "md5",
    "min",
    "mod",
    "now",
    "nullif",
    "position",
    "power",
    "rank",
    "regexp_replace",
    "replace",
    "right",
    "round",
    "row_number",
    "row_to_json",
    "rtrim",
    "split_part",
    "sqrt",
    "string_agg",
    "strpos",
    "substr",
    "substring",
    "sum",
    "to_char",
    "to_json",
    "to_jsonb",
    "to_timestamp",
    "trim",
    "trunc",
    "unnest",
    "upper",
    "version",
];
