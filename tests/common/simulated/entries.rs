//! Which kernels a file holds, read from its preprocessed text.

/// The kernels of a preprocessed file, each with its launch bound, and the names of its dynamic shared arrays.
pub fn declarations(text: &str) -> (Vec<(String, String)>, Vec<String>) {
    let mut entries: Vec<(String, String)> = Vec::new();
    for (at, marker) in text.match_indices("SIMULATED_GLOBAL") {
        let before = text[..at].rsplit([';', '}', '{']).next().unwrap_or("");
        if before.contains("template") || !before.contains("extern \"C\"") {
            continue;
        }
        let mut rest = text[at + marker.len()..].to_string();
        let mut bound = "0".to_string();
        if let Some(start) = rest.find("SIMULATED_BOUNDS").filter(|&start| start < rest.find(['{', ';']).unwrap_or(0)) {
            let open = start + "SIMULATED_BOUNDS".len();
            let inner = balanced(&rest[open..]);
            bound = format!("({})", split_first(inner));
            let end = open + inner.len() + 2;
            rest.replace_range(start..end, " ");
        }
        let head = rest.split('(').next().unwrap_or("");
        let name = head.split_whitespace().last().unwrap_or("").to_string();
        // A kernel may be declared before it is defined.
        if !entries.iter().any(|(known, _)| *known == name) {
            entries.push((name, bound));
        }
    }
    let mut arrays = Vec::new();
    for (at, _) in text.match_indices("extern thread_local") {
        let declaration = text[at..].split(';').next().unwrap_or("");
        if let Some(name) = declaration.split('[').next().and_then(|head| head.split_whitespace().last()) {
            let name = name.to_string();
            if !arrays.contains(&name) {
                arrays.push(name);
            }
        }
    }
    (entries, arrays)
}

/// What stands between the bracket that `text` begins with and the one that closes it.
fn balanced(text: &str) -> &str {
    let mut depth = 0;
    let start = text.find('(').unwrap_or(0);
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' if depth == 1 => return &text[start + 1..at],
            ')' => depth -= 1,
            _ => {}
        }
    }
    ""
}

fn split_first(arguments: &str) -> &str {
    let mut depth = 0;
    for (at, letter) in arguments.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => return &arguments[..at],
            _ => {}
        }
    }
    arguments
}
