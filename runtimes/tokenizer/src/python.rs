//! What templates take for granted of Python: how it writes a value, and methods of its texts, dicts and lists.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

/// str() of a value.
pub fn text(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_string(),
        None => repr(value),
    }
}

fn repr(value: &Value) -> String {
    match value.kind() {
        ValueKind::Undefined => String::new(),
        ValueKind::None => "None".to_string(),
        ValueKind::Bool => if value.is_true() { "True" } else { "False" }.to_string(),
        ValueKind::String => quoted(value.as_str().unwrap_or_default()),
        ValueKind::Seq | ValueKind::Iterable => match value.try_iter() {
            Ok(items) => format!("[{}]", items.map(|item| repr(&item)).collect::<Vec<_>>().join(", ")),
            Err(_) => value.to_string(),
        },
        ValueKind::Map => match value.try_iter() {
            Ok(keys) => {
                let entry = |key: Value| {
                    let found = value.get_item(&key).unwrap_or_default();
                    format!("{}: {}", repr(&key), repr(&found))
                };
                format!("{{{}}}", keys.map(entry).collect::<Vec<_>>().join(", "))
            }
            Err(_) => value.to_string(),
        },
        _ => value.to_string(),
    }
}

fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

/// Python's white space has four control characters that Unicode's has not.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

fn ends_line(c: char) -> bool {
    matches!(c, '\n'..='\r' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// The filter `trim`, which strips these characters, or white space.
pub fn trim(text: String, characters: Option<String>) -> String {
    text.trim_matches(|c| characters.as_ref().map_or(is_space(c), |s| s.contains(c))).to_string()
}

/// A method that minijinja's values have not: UnknownMethod where they have it in Python neither, or not here.
pub fn method(_: &State, value: &Value, name: &str, given: &[Value]) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => of_text(value.as_str().unwrap_or_default(), name, given),
        ValueKind::Map => of_dict(value, name, given),
        ValueKind::Seq | ValueKind::Iterable => of_list(value, name, given),
        _ => Err(unknown(name)),
    }
}

fn unknown(name: &str) -> Error {
    Error::new(ErrorKind::UnknownMethod, format!("there is no method {name} here"))
}

fn wrong(name: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("{name} cannot take these arguments"))
}

/// The arguments as texts; an absent or a None one where there may be fewer.
fn texts<'a>(name: &str, given: &'a [Value], least: usize, most: usize) -> Result<Vec<Option<&'a str>>, Error> {
    if given.len() < least || given.len() > most {
        return Err(wrong(name));
    }
    (0..most)
        .map(|at| match given.get(at) {
            None => Ok(None),
            Some(value) if value.is_none() && at >= least => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or_else(|| wrong(name)),
        })
        .collect()
}

/// How often at most, from the last argument, which is a number; -1: always.
fn limit(name: &str, given: &[Value], at: usize) -> Result<Option<usize>, Error> {
    match given.get(at) {
        None => Ok(None),
        Some(value) => value.as_i64().map(|n| usize::try_from(n).ok()).ok_or_else(|| wrong(name)),
    }
}

fn of_text(text: &str, name: &str, given: &[Value]) -> Result<Value, Error> {
    let plain = |made: String| texts(name, given, 0, 0).map(|_| Value::from(made));
    match name {
        "strip" | "lstrip" | "rstrip" => {
            let characters = texts(name, given, 0, 1)?[0];
            let cut = |c: char| characters.map_or(is_space(c), |s| s.contains(c));
            let left = if name == "rstrip" { text } else { text.trim_start_matches(cut) };
            Ok(Value::from(if name == "lstrip" { left } else { left.trim_end_matches(cut) }))
        }
        "startswith" | "endswith" => {
            let holds = |word: &str| if name == "startswith" { text.starts_with(word) } else { text.ends_with(word) };
            match given {
                [one] if one.as_str().is_some() => Ok(Value::from(one.as_str().is_some_and(holds))),
                [several] if several.kind() == ValueKind::Seq => {
                    Ok(Value::from(several.try_iter()?.any(|word| word.as_str().is_some_and(holds))))
                }
                _ => Err(wrong(name)),
            }
        }
        "split" => {
            let most = limit(name, given, 1)?;
            let by = texts(name, &given[..given.len().min(1)], 0, 1)?[0];
            if given.len() > 2 || by == Some("") {
                return Err(wrong(name));
            }
            Ok(Value::from(split(text, by, most)))
        }
        "replace" => {
            let most = limit(name, given, 2)?;
            let words = texts(name, &given[..given.len().min(2)], 2, 2)?;
            let (from, to) = (words[0].unwrap_or_default(), words[1].unwrap_or_default());
            Ok(Value::from(most.map_or_else(|| text.replace(from, to), |n| text.replacen(from, to, n))))
        }
        "find" | "count" => {
            let word = texts(name, given, 1, 1)?[0].unwrap_or_default();
            Ok(Value::from(match (name, text.find(word)) {
                ("count", _) if word.is_empty() => text.chars().count() as i64 + 1,
                ("count", _) => text.matches(word).count() as i64,
                (_, Some(at)) => text[..at].chars().count() as i64,
                (_, None) => -1,
            }))
        }
        "join" => match given {
            [several] => {
                let words: Option<Vec<String>> = several.try_iter()?.map(|w| w.as_str().map(str::to_string)).collect();
                Ok(Value::from(words.ok_or_else(|| wrong(name))?.join(text)))
            }
            _ => Err(wrong(name)),
        },
        "upper" => plain(text.to_uppercase()),
        "lower" => plain(text.to_lowercase()),
        "title" => plain(titled(text)),
        "capitalize" => {
            let mut characters = text.chars();
            let first: String = characters.next().into_iter().flat_map(char::to_uppercase).collect();
            plain(first + &characters.as_str().to_lowercase())
        }
        "splitlines" => {
            texts(name, given, 0, 0)?;
            let text = text.replace("\r\n", "\n");
            let whole = text.strip_suffix(ends_line).unwrap_or(&text);
            let lines = whole.split(ends_line).map(str::to_string).collect();
            Ok(Value::from(if text.is_empty() { Vec::<String>::new() } else { lines }))
        }
        "isdigit" => Ok(Value::from(!text.is_empty() && text.chars().all(|c| c.is_ascii_digit()))),
        _ => Err(unknown(name)),
    }
}

fn split(text: &str, by: Option<&str>, most: Option<usize>) -> Vec<String> {
    let Some(word) = by else {
        let mut parts = Vec::new();
        let mut rest = text.trim_start_matches(is_space);
        while !rest.is_empty() && most.is_none_or(|n| parts.len() < n) {
            let end = rest.find(is_space).unwrap_or(rest.len());
            parts.push(rest[..end].to_string());
            rest = rest[end..].trim_start_matches(is_space);
        }
        if !rest.is_empty() {
            parts.push(rest.to_string());
        }
        return parts;
    };
    match most {
        None => text.split(word).map(str::to_string).collect(),
        Some(n) => text.splitn(n + 1, word).map(str::to_string).collect(),
    }
}

/// Every letter behind one that is none in upper case, the others in lower case.
fn titled(text: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for character in text.chars() {
        if inside {
            out.extend(character.to_lowercase());
        } else {
            out.extend(character.to_uppercase());
        }
        inside = character.is_alphabetic();
    }
    out
}

fn of_dict(value: &Value, name: &str, given: &[Value]) -> Result<Value, Error> {
    match (name, given) {
        ("keys", []) => Ok(value.try_iter()?.collect()),
        ("values", []) => value.try_iter()?.map(|key| value.get_item(&key)).collect::<Result<Value, Error>>(),
        ("items", []) => value
            .try_iter()?
            .map(|key| Ok(Value::from(vec![key.clone(), value.get_item(&key)?])))
            .collect::<Result<Value, Error>>(),
        ("get", [key]) => Ok(found(value, key).unwrap_or(Value::from(()))),
        ("get", [key, other]) => Ok(found(value, key).unwrap_or(other.clone())),
        _ => Err(unknown(name)),
    }
}

fn found(value: &Value, key: &Value) -> Option<Value> {
    value.get_item(key).ok().filter(|found| !found.is_undefined())
}

fn of_list(value: &Value, name: &str, given: &[Value]) -> Result<Value, Error> {
    match (name, given) {
        ("count", [wanted]) => Ok(Value::from(value.try_iter()?.filter(|item| item == wanted).count())),
        ("index", [wanted]) => match value.try_iter()?.position(|item| item == *wanted) {
            Some(at) => Ok(Value::from(at)),
            None => Err(Error::new(ErrorKind::InvalidOperation, format!("{} is not in list", repr(wanted)))),
        },
        _ => Err(unknown(name)), // append among them: a conversation is not the template's to change
    }
}
