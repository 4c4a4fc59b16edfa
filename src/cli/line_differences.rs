//! In which lines two texts differ.

/// Removed lines with `-` before each, added lines with `+`, and before each group the number of its first line in `before`.
/// Empty where the texts are equal. After a difference it goes on at the nearest pair of equal lines. The ends of lines (LF,
/// CRLF) are not compared.
pub(super) fn of(before: &str, after: &str) -> Vec<String> {
    let (before, after): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    let (mut old, mut new) = (0, 0);
    let mut differences = Vec::new();
    while old < before.len() || new < after.len() {
        let (removed, added) = next_equal(&before[old..], &after[new..]);
        if removed + added == 0 {
            (old, new) = (old + 1, new + 1);
            continue;
        }
        differences.push(format!("@@ line {} @@", old + 1));
        let lines = &before[old..old + removed];
        differences.extend(lines.iter().map(|line| format!("-{line}")));
        let lines = &after[new..new + added];
        differences.extend(lines.iter().map(|line| format!("+{line}")));
        (old, new) = (old + removed, new + added);
    }
    differences
}

/// How many lines of each come before the next pair of equal lines; all where there is none.
fn next_equal(before: &[&str], after: &[&str]) -> (usize, usize) {
    for left_out in 0..before.len() + after.len() {
        let first = left_out.saturating_sub(after.len().saturating_sub(1));
        for removed in first..=left_out.min(before.len().saturating_sub(1)) {
            let pair = (before.get(removed), after.get(left_out - removed));
            if let (Some(old), Some(new)) = pair
                && old == new
            {
                return (removed, left_out - removed);
            }
        }
    }
    (before.len(), after.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_differ_in_no_line() {
        for text in ["", "a", "a\nb\n", "a\n\n"] {
            assert_eq!(of(text, text), [""; 0]);
        }
        assert_eq!(of("a\r\nb", "a\nb\n"), [""; 0]);
    }

    #[test]
    fn what_differs_is_between_what_is_equal() {
        let differences = of("a\nb\nc\nd\ne\n", "a\nB\nc\nd\nd and a half\ne\nf\n");
        let expected = [
            "@@ line 2 @@",
            "-b",
            "+B",
            "@@ line 5 @@",
            "+d and a half",
            "@@ line 6 @@",
            "+f",
        ];
        assert_eq!(differences, expected);
        assert_eq!(of("", "a\n"), ["@@ line 1 @@", "+a"]);
        assert_eq!(of("a\nb", ""), ["@@ line 1 @@", "-a", "-b"]);
        assert_eq!(of("a", "b\nc"), ["@@ line 1 @@", "-a", "+b", "+c"]);
    }
}
