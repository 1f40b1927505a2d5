//! What a client hears at its login of the settings that it came with, before any server has them.
//!
//! Drivers go by it at once: the encoding of the first statement, how a date is to be read.  A
//! server says each in words of its own; what can't be said in those with certainty is left to the
//! server, which tells it with the first statement.

use crate::guc::Values;

/// Longer names of applications are cut off by the server.
const LONGEST_NAME: usize = 63;

/// What is `reported`, as it will be with settings of the client's `own`; `None`: no different.
pub fn as_started(reported: &Values, own: &Values) -> Option<Values> {
    let news = reported.iter().filter_map(|(name, said)| {
        let given = own.get(&name.to_ascii_lowercase())?;
        let told = in_words_of_server(name, given, said)?;
        (told != *said).then(|| (name.clone(), told))
    });
    let news: Vec<_> = news.collect();
    if news.is_empty() {
        return None;
    }
    let mut all = reported.clone();
    all.extend(news);
    Some(all)
}

fn in_words_of_server(name: &[u8], given: &[u8], said: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(given).ok()?;
    let told = match name.to_ascii_lowercase().as_slice() {
        b"client_encoding" => encoding(text)?.to_owned(),
        b"application_name" => {
            let is_plain = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
            (is_plain && text.len() <= LONGEST_NAME).then(|| text.to_owned())?
        }
        b"datestyle" => date_style(text, std::str::from_utf8(said).ok()?)?,
        b"timezone" => {
            let is_name = text.starts_with(|first: char| first.is_ascii_uppercase());
            is_name.then(|| text.to_owned())?
        }
        b"intervalstyle" => {
            let lower = text.to_ascii_lowercase();
            let known = ["postgres", "postgres_verbose", "sql_standard", "iso_8601"];
            known.contains(&lower.as_str()).then_some(lower)?
        }
        b"standard_conforming_strings" | b"default_transaction_read_only" => {
            match text.to_ascii_lowercase().as_str() {
                "on" | "true" | "yes" | "1" => "on".to_owned(),
                "off" | "false" | "no" | "0" => "off".to_owned(),
                _ => return None,
            }
        }
        _ => return None,
    };
    Some(told.into_bytes())
}

/// The server's name of an encoding that has several: it takes no notice of case and signs.
fn encoding(given: &str) -> Option<&'static str> {
    let plain: String = given
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|letter| letter.to_ascii_lowercase())
        .collect();
    Some(match plain.as_str() {
        "utf8" | "unicode" => "UTF8",
        "sqlascii" => "SQL_ASCII",
        "latin1" | "iso88591" => "LATIN1",
        "latin2" | "iso88592" => "LATIN2",
        "latin3" | "iso88593" => "LATIN3",
        "latin4" | "iso88594" => "LATIN4",
        "latin5" | "iso88599" => "LATIN5",
        "latin6" | "iso885910" => "LATIN6",
        "latin7" | "iso885913" => "LATIN7",
        "latin8" | "iso885914" => "LATIN8",
        "latin9" | "iso885915" => "LATIN9",
        "latin10" | "iso885916" => "LATIN10",
        "win1250" | "windows1250" => "WIN1250",
        "win1251" | "windows1251" | "win" => "WIN1251",
        "win1252" | "windows1252" => "WIN1252",
        "koi8r" | "koi8" => "KOI8R",
        "eucjp" => "EUC_JP",
        "euckr" => "EUC_KR",
        "euccn" => "EUC_CN",
        "euctw" => "EUC_TW",
        "sjis" | "shiftjis" | "mskanji" | "win932" | "windows932" => "SJIS",
        "big5" | "win950" | "windows950" => "BIG5",
        "gbk" | "win936" | "windows936" => "GBK",
        "gb18030" => "GB18030",
        _ => return None,
    })
}

/// A style and an order; what is not given stays as it was said.
fn date_style(given: &str, said: &str) -> Option<String> {
    let (mut style, mut order) = said.split_once(", ")?;
    for word in given.split([',', ' ']).filter(|word| !word.is_empty()) {
        let is = |known: &&&str| known.eq_ignore_ascii_case(word);
        if let Some(known) = ["ISO", "SQL", "Postgres", "German"].iter().find(is) {
            style = known;
        } else if let Some(known) = ["MDY", "DMY", "YMD"].iter().find(is) {
            order = known;
        } else {
            return None;
        }
    }
    // German brings an order of its own, if none is said.
    let is_ordered = given.to_ascii_uppercase().contains("MDY") || given.contains([',', ' ']);
    (style != "German" || is_ordered).then(|| format!("{style}, {order}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&str, &str)]) -> Values {
        let bytes = |text: &str| text.as_bytes().to_vec();
        pairs
            .iter()
            .map(|(name, value)| (bytes(name), bytes(value)))
            .collect()
    }

    fn told(own: &[(&str, &str)]) -> Option<Values> {
        let reported = [
            ("DateStyle", "ISO, MDY"),
            ("TimeZone", "UTC"),
            ("application_name", ""),
            ("client_encoding", "UTF8"),
            ("server_version", "15.2"),
        ];
        as_started(&values(&reported), &values(own))
    }

    fn one(name: &str, given: &str) -> String {
        let found = told(&[(&name.to_ascii_lowercase(), given)]);
        let value = found.and_then(|all| all.get(name.as_bytes()).cloned());
        String::from_utf8(value.unwrap_or_default()).unwrap()
    }

    #[test]
    fn settings_of_the_start_up_are_told_in_the_words_of_the_server() {
        assert_eq!(one("client_encoding", "iso-8859-1"), "LATIN1");
        assert_eq!(one("application_name", "invoices"), "invoices");
        assert_eq!(one("TimeZone", "Europe/Berlin"), "Europe/Berlin");
        assert_eq!(one("DateStyle", "german, dmy"), "German, DMY");
        assert_eq!(one("DateStyle", "DMY"), "ISO, DMY");
    }

    #[test]
    fn what_is_the_same_or_not_certain_is_left_to_the_server() {
        assert_eq!(
            told(&[("client_encoding", "utf-8"), ("datestyle", "iso")]),
            None
        );
        for (name, given) in [
            ("client_encoding", "klingon"),
            ("application_name", "caf\u{e9}"),
            ("datestyle", "european"),
            ("datestyle", "German"),
            ("timezone", "+02"),
            ("server_version", "9"),
            ("work_mem", "1MB"),
        ] {
            assert_eq!(told(&[(name, given)]), None, "{name} {given}");
        }
        assert_eq!(told(&[("application_name", &"n".repeat(64))]), None);
    }
}
